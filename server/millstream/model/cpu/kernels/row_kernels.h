// The small operations on tensors: checks of what they are given, and rows over threads.
#pragma once

#include <ATen/ops/empty.h>

#include <optional>
#include <tuple>

#include "elementwise.h"
#include "tensors.h"

namespace millstream {

// A norm over the last dimension of n elements.
struct Norm {
  Tensor weight;
  double eps;
  bool unit_offset;

};

// The same for one row of T after the other. total: room for x + residual, where there is one.
template <typename T>
class NormRows {
 public:
  explicit NormRows(const Norm& norm)
      : weight_(data<T>(norm.weight)), size_(norm.weight.numel()), eps_(norm.eps),
        unit_offset_(norm.unit_offset) {}

  void operator()(const T* x, const T* residual, T* total, T* out) const {
    rms_norm_row<T>(x, residual, weight_, eps_, unit_offset_, size_, total, out);
  }

 private:
  const T* weight_;
  int64_t size_;
  float eps_;
  bool unit_offset_;
};

// out = x, normalised; x and out may be the same.
inline void rms_norm_out(const Tensor& x, const Norm& norm, const Tensor& out) {
  Rows rows(x), to(out);
  TORCH_CHECK(norm.weight.is_contiguous() && norm.weight.numel() == rows.size,
              "weight does not fit");
  by_dtype({x, norm.weight, out}, [&](auto t) {
    using T = decltype(t);
    NormRows<T> normalise(norm);
    auto from = data<T>(x), result = data<T>(out);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      normalise(from + rows[row], nullptr, nullptr, result + to[row]);
    });
  });
}

// total = x + residual, out = total, normalised; total and residual may be the same.
inline void add_rms_norm_out(const Tensor& x, const Tensor& residual, const Norm& norm,
                             const Tensor& total, const Tensor& out) {
  Rows rows(x), others(residual), totals(total), to(out);
  TORCH_CHECK(x.sizes() == residual.sizes() && norm.weight.is_contiguous() &&
              norm.weight.numel() == rows.size, "shapes do not fit");
  by_dtype({x, residual, norm.weight}, [&](auto t) {
    using T = decltype(t);
    NormRows<T> normalise(norm);
    auto from = data<T>(x), other = data<T>(residual), sum = data<T>(total), result = data<T>(out);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      normalise(from + rows[row], other + others[row], sum + totals[row], result + to[row]);
    });
  });
}

inline Tensor sum_of(const Tensor& x, const Tensor& y) {
  Tensor out = at::empty(x.sizes(), x.options());
  Rows rows(x), others(y), to(out);
  by_dtype({x, y}, [&](auto t) {
    using T = decltype(t);
    auto one = data<T>(x), other = data<T>(y), result = data<T>(out);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      each_vector(rows.size, [&](int64_t i, auto count) {
        Vec sum = load_some(one + rows[row] + i, count) + load_some(other + others[row] + i, count);
        store_some(result + to[row] + i, sum, count);
      });
    });
  });
  return out;
}

// x [n, size] -> what index_of_largest says of each row.
inline Tensor best_tokens(const Tensor& x) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "rows expected");
  Rows rows(x);
  Tensor out = at::empty({x.size(0)}, x.options().dtype(at::kLong));
  auto index = data<int64_t>(out);
  by_dtype({x}, [&](auto t) {
    auto from = data<decltype(t)>(x);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      index[row] = index_of_largest(from + rows[row], rows.size);
    });
  });
  return out;
}

enum class Gate { silu, gelu_tanh };

// out [T, n] = activation(gate) * up of merged [T, 2 * n], gate then up
inline void gated_out(Gate gate, const Tensor& merged, const Tensor& out) {
  TORCH_CHECK(merged.dim() == 2 && merged.size(1) % 2 == 0, "[T, 2 * intermediate] expected");
  Rows rows(merged), to(out);
  int64_t size = rows.size / 2;
  by_dtype({merged, out}, [&](auto t) {
    using T = decltype(t);
    auto from = data<T>(merged), result = data<T>(out);
    auto each = [&](auto activation) {
      each_row(rows.outer, rows.size, [&](int64_t row) {
        const T* gates = from + rows[row];
        gated_row<T>(gates, gates + size, size, result + to[row], activation);
      });
    };
    if (gate == Gate::silu)
      each([](Vec x) __attribute__((always_inline)) { return silu(x); });
    else
      each([](Vec x) __attribute__((always_inline)) { return gelu_tanh(x); });
  });
}

// By which angles the tokens of a step are turned, and where they go in the caches.
struct Places {
  const Tensor &cos, &sin, &slots;
};

// to_query, to_key = query, key [T, heads, d], normalised per head where there are norms, and turned
// by `places` unless its angles are empty; to_key and value also go to the caches.
inline void heads_to_cache(const Tensor& query, const Tensor& key, const Tensor& value,
                           const Norm* query_norm, const Norm* key_norm, const Places& places,
                           const Tensor& key_cache, const Tensor& value_cache,
                           const Tensor& to_query, const Tensor& to_key) {
  TORCH_CHECK(query.dim() == 3 && key.dim() == 3 && value.dim() == 3 && places.cos.dim() == 2,
              "wrong number of dimensions");
  const Tensor &cos = places.cos, &sin = places.sin;
  Rows queries(query), keys(key), values(value), turned_queries(to_query), turned_keys(to_key);
  int64_t tokens = query.size(0), turned = cos.size(1);
  int64_t heads = queries.inner, kv_heads = keys.inner, dim = queries.size;
  TORCH_CHECK(key.size(0) == tokens && value.size(0) == tokens && places.slots.numel() == tokens &&
              cos.size(0) == tokens && keys.size == dim && values.inner == kv_heads,
              "query, key, value, cos and slots do not fit");
  TORCH_CHECK(cos.sizes() == sin.sizes() && cos.is_contiguous() && sin.is_contiguous() &&
              turned <= dim && turned % 2 == 0, "cos and sin do not fit");
  for (const Norm* norm : {query_norm, key_norm})
    TORCH_CHECK(!norm || (norm->weight.is_contiguous() && norm->weight.numel() == dim &&
                          norm->weight.scalar_type() == query.scalar_type()), "norms do not fit");
  TORCH_CHECK(key_cache.is_contiguous() && value_cache.is_contiguous() && key_cache.dim() == 4 &&
              key_cache.sizes().slice(2) == key.sizes().slice(1) &&
              value_cache.sizes().slice(2) == value.sizes().slice(1) &&
              key_cache.sizes().slice(0, 2) == value_cache.sizes().slice(0, 2),
              "caches do not fit key and value");
  Indices slot_of(places.slots);
  int64_t num_slots = key_cache.size(0) * key_cache.size(1);
  for (int64_t t = 0; t < tokens; t++)
    TORCH_CHECK(slot_of[t] >= 0 && slot_of[t] < num_slots, "slot ", slot_of[t], " does not exist");
  by_dtype({query, key, value, cos, sin, key_cache, value_cache}, [&](auto element) {
    using T = decltype(element);
    auto [from_query, from_key, from_value] = std::tuple{data<T>(query), data<T>(key), data<T>(value)};
    auto [cosines, sines, out_query, out_key] =
        std::tuple{data<T>(cos), data<T>(sin), data<T>(to_query), data<T>(to_key)};
    auto cached_keys = data<T>(key_cache), cached_values = data<T>(value_cache);
    auto rows_of = [](const Norm* norm) {
      return norm ? std::optional<NormRows<T>>(*norm) : std::nullopt;
    };
    std::optional<NormRows<T>> normal_query = rows_of(query_norm), normal_key = rows_of(key_norm);
    each_row(tokens, (heads + 2 * kv_heads) * dim, [&](int64_t t) {
      auto prepare = [&](const T* from, const std::optional<NormRows<T>>& normalise, T* to) {
        if (normalise) (*normalise)(from, nullptr, nullptr, to);
        rotate_row<T>(normalise ? to : from, cosines + t * turned, sines + t * turned, turned, dim,
                      to);
      };
      for (int64_t row = t * heads; row < (t + 1) * heads; row++)
        prepare(from_query + queries[row], normal_query, out_query + turned_queries[row]);
      for (int64_t row = t * kv_heads; row < (t + 1) * kv_heads; row++) {
        T* to = out_key + turned_keys[row];
        prepare(from_key + keys[row], normal_key, to);
        int64_t slot = slot_of[t] * kv_heads + row % kv_heads;
        std::memcpy(cached_keys + slot * dim, to, dim * sizeof(T));
        std::memcpy(cached_values + slot * values.size, from_value + values[row],
                    values.size * sizeof(T));
      }
    });
  });
}

}  // namespace millstream
