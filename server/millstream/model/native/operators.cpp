// The kernels as torch operators: checks of what they are given, and registration. Their meaning is
// in reference.py beside this file: the same functions in plain torch.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "decode.h"
#include "elementwise.h"
#include "linear.h"
#include "prefill.h"
#include "tensors.h"

namespace millstream {
namespace {

Tensor paged_attention_decode(const Tensor& query, const Tensor& key_cache,
                              const Tensor& value_cache, const Tensor& block_tables,
                              const Tensor& positions, double scale,
                              std::optional<int64_t> window, std::optional<double> softcap,
                              const MaybeTensor& sinks) {
  TORCH_CHECK(block_tables.dim() == 2, "wrong number of dimensions");
  Tensor tables = block_tables.contiguous(), last = positions.contiguous();
  Decode decode(query, key_cache, value_cache, tables, last, scale, window, softcap, sinks);
  by_dtype({query, key_cache, value_cache}, [&](auto t) { decode.run<decltype(t)>(); });
  return decode.out;
}

Tensor paged_attention_prefill(const Tensor& query, const Tensor& key_cache,
                               const Tensor& value_cache, const Tensor& block_tables,
                               const Tensor& starts, const Tensor& lengths, double scale,
                               std::optional<int64_t> window, std::optional<double> softcap,
                               const MaybeTensor& sinks) {
  TORCH_CHECK(block_tables.dim() == 2, "wrong number of dimensions");
  Tensor tables = block_tables.contiguous();
  Prefill prefill(query.contiguous(), key_cache, value_cache, tables, starts, lengths, scale,
                  window, softcap, sinks);
  by_dtype({query, key_cache, value_cache}, [&](auto t) { prefill.run<decltype(t)>(); });
  return prefill.out;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, bool unit_offset) {
  Rows rows(x);
  TORCH_CHECK(weight.is_contiguous() && weight.numel() == rows.size, "weight does not fit");
  Tensor out = at::empty(x.sizes(), x.options());
  by_dtype({x, weight}, [&](auto t) {
    using T = decltype(t);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      rms_norm_row<T>(data<T>(x) + rows[row], nullptr, data<T>(weight), eps, unit_offset, rows.size,
                      nullptr, data<T>(out) + row * rows.size);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual,
                                        const Tensor& weight, double eps, bool unit_offset) {
  Rows rows(x), others(residual);
  TORCH_CHECK(x.sizes() == residual.sizes() && weight.is_contiguous() &&
              weight.numel() == rows.size, "shapes do not fit");
  Tensor total = at::empty(x.sizes(), x.options()), out = at::empty(x.sizes(), x.options());
  by_dtype({x, residual, weight}, [&](auto t) {
    using T = decltype(t);
    each_row(rows.count(), rows.size, [&](int64_t row) {
      int64_t at = row * rows.size;
      rms_norm_row<T>(data<T>(x) + rows[row], data<T>(residual) + others[row], data<T>(weight), eps,
                      unit_offset, rows.size, data<T>(total) + at, data<T>(out) + at);
    });
  });
  return {out, total};
}

template <typename F>
Tensor gated(const Tensor& merged, F&& activation) {
  TORCH_CHECK(merged.dim() == 2 && merged.size(1) % 2 == 0, "[T, 2 * intermediate] expected");
  Rows rows(merged);
  int64_t size = rows.size / 2;
  Tensor out = at::empty({rows.outer, size}, merged.options());
  by_dtype({merged}, [&](auto t) {
    using T = decltype(t);
    each_row(rows.outer, size, [&](int64_t row) {
      const T* gate = data<T>(merged) + rows[row];
      gated_row<T>(gate, gate + size, size, data<T>(out) + row * size, activation);
    });
  });
  return out;
}

Tensor silu_mul(const Tensor& merged) {
  return gated(merged, [](Vec x) __attribute__((always_inline)) { return silu(x); });
}

Tensor gelu_tanh_mul(const Tensor& merged) {
  return gated(merged, [](Vec x) __attribute__((always_inline)) { return gelu_tanh(x); });
}

std::tuple<Tensor, Tensor> rotary_to_cache(const Tensor& query, const Tensor& key,
                                           const Tensor& value, const Tensor& cos,
                                           const Tensor& sin, const Tensor& slots,
                                           const Tensor& key_cache, const Tensor& value_cache) {
  TORCH_CHECK(query.dim() == 3 && key.dim() == 3 && value.dim() == 3 && cos.dim() == 2,
              "wrong number of dimensions");
  Rows queries(query), keys(key), values(value);
  int64_t tokens = query.size(0), turned = cos.size(1);
  int64_t heads = queries.inner, kv_heads = keys.inner, dim = queries.size;
  TORCH_CHECK(key.size(0) == tokens && value.size(0) == tokens && slots.numel() == tokens &&
              cos.size(0) == tokens && keys.size == dim && values.inner == kv_heads,
              "query, key, value, cos and slots do not fit");
  TORCH_CHECK(cos.sizes() == sin.sizes() && cos.is_contiguous() && sin.is_contiguous() &&
              turned <= dim && turned % 2 == 0, "cos and sin do not fit");
  TORCH_CHECK(key_cache.is_contiguous() && value_cache.is_contiguous() && key_cache.dim() == 4 &&
              key_cache.sizes().slice(2) == key.sizes().slice(1) &&
              value_cache.sizes().slice(2) == value.sizes().slice(1) &&
              key_cache.sizes().slice(0, 2) == value_cache.sizes().slice(0, 2),
              "caches do not fit key and value");
  Tensor turned_query = at::empty(query.sizes(), query.options());
  Tensor turned_key = at::empty(key.sizes(), key.options());
  Indices slot_of(slots);
  int64_t num_slots = key_cache.size(0) * key_cache.size(1);
  for (int64_t t = 0; t < tokens; t++)
    TORCH_CHECK(slot_of[t] >= 0 && slot_of[t] < num_slots, "slot ", slot_of[t], " does not exist");
  by_dtype({query, key, value, cos, sin, key_cache, value_cache}, [&](auto element) {
    using T = decltype(element);
    each_row(tokens, (heads + 2 * kv_heads) * dim, [&](int64_t t) {
      const T *turn_cos = data<T>(cos) + t * turned, *turn_sin = data<T>(sin) + t * turned;
      for (int64_t row = t * heads; row < (t + 1) * heads; row++)
        rotate_row<T>(data<T>(query) + queries[row], turn_cos, turn_sin, turned, dim,
                      data<T>(turned_query) + row * dim);
      for (int64_t row = t * kv_heads; row < (t + 1) * kv_heads; row++) {
        T* to = data<T>(turned_key) + row * dim;
        rotate_row<T>(data<T>(key) + keys[row], turn_cos, turn_sin, turned, dim, to);
        int64_t slot = slot_of[t] * kv_heads + row % kv_heads;
        std::memcpy(data<T>(key_cache) + slot * dim, to, dim * sizeof(T));
        std::memcpy(data<T>(value_cache) + slot * values.size, data<T>(value) + values[row],
                    values.size * sizeof(T));
      }
    });
  });
  return {turned_query, turned_key};
}

std::tuple<bool, bool> fast_products() { return {Bfloats::IS_FAST, Bytes::IS_FAST}; }

TORCH_LIBRARY(millstream, library) {
  library.def(
      "paged_attention_decode(Tensor query, Tensor key_cache, Tensor value_cache, "
      "Tensor block_tables, Tensor positions, *, float scale, int? window=None, "
      "float? softcap=None, Tensor? sinks=None) -> Tensor");
  library.def(
      "paged_attention_prefill(Tensor query, Tensor key_cache, Tensor value_cache, "
      "Tensor block_tables, Tensor starts, Tensor lengths, *, float scale, int? window=None, "
      "float? softcap=None, Tensor? sinks=None) -> Tensor");
  library.def("fast_products() -> (bool, bool)", &fast_products);
  library.def("pack_weight(Tensor weight) -> Tensor");
  library.def("packed_linear(Tensor x, Tensor packed, int outputs, Tensor? bias=None) -> Tensor");
  library.def(
      "int8_linear(Tensor x, Tensor packed, Tensor sums, Tensor scales, Tensor? bias=None) "
      "-> Tensor");
  library.def("rms_norm(Tensor x, Tensor weight, float eps, *, bool unit_offset=False) -> Tensor");
  library.def(
      "add_rms_norm(Tensor x, Tensor residual, Tensor weight, *, float eps, "
      "bool unit_offset=False) -> (Tensor, Tensor)");
  library.def("silu_mul(Tensor merged) -> Tensor");
  library.def("gelu_tanh_mul(Tensor merged) -> Tensor");
  library.def(
      "rotary_to_cache(Tensor query, Tensor key, Tensor value, *, Tensor cos, Tensor sin, "
      "Tensor slots, Tensor(a!) key_cache, Tensor(b!) value_cache) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(millstream, CPU, library) {
  library.impl("paged_attention_decode", &paged_attention_decode);
  library.impl("paged_attention_prefill", &paged_attention_prefill);
  library.impl("pack_weight", &pack_weight);
  library.impl("packed_linear", &packed_linear);
  library.impl("int8_linear", &int8_linear);
  library.impl("rms_norm", &rms_norm);
  library.impl("add_rms_norm", &add_rms_norm);
  library.impl("silu_mul", &silu_mul);
  library.impl("gelu_tanh_mul", &gelu_tanh_mul);
  library.impl("rotary_to_cache", &rotary_to_cache);
}

}  // namespace
}  // namespace millstream
