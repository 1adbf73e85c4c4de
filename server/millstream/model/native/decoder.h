// All decoder layers of a model in one call: what DecoderStack in fused/stack.py computes, without
// Python between the operations. Results live in buffers that stay from step to step, so that the
// operating system need not hand out and clear memory in every layer.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <torch/custom_class.h>

#include <string_view>
#include <utility>
#include <vector>

#include "decode.h"
#include "linear.h"
#include "operations.h"
#include "prefill.h"

namespace millstream {

// A tensor that is made anew only if what is asked of it is larger than ever before.
class Buffer {
 public:
  // [rows, columns], valid until the next call; the content is whatever was there.
  const Tensor& matrix(int64_t rows, int64_t columns, const Tensor& like) {
    bool is_alike = memory_.defined() && memory_.scalar_type() == like.scalar_type();
    if (is_alike && view_.size(0) == rows && view_.size(1) == columns) return view_;
    if (!is_alike || memory_.numel() < rows * columns)
      memory_ = at::empty({rows * columns}, like.options());
    return view_ = memory_.narrow(0, 0, rows * columns).view({rows, columns});
  }

 private:
  Tensor memory_, view_;
};

struct NormLayer : torch::CustomClassHolder, Norm {
  NormLayer(Tensor by, double epsilon, bool has_offset)
      : Norm{std::move(by), epsilon, has_offset} {}
};

// A linear layer whose weight lies as whoever multiplies it wants it: packed for the products in
// linear.h (int8 with sums and scales), packed by oneDNN, or plain.
class LinearLayer : public torch::CustomClassHolder {
 public:
  LinearLayer(Tensor weight, int64_t outputs, MaybeTensor bias, MaybeTensor sums,
              MaybeTensor scales)
      : weight_(std::move(weight)), outputs_(outputs), bias_(std::move(bias)),
        sums_(std::move(sums)), scales_(std::move(scales)) {
    TORCH_CHECK(is_packed() || weight_.is_mkldnn() || weight_.dim() == 2, "not a linear layer");
    TORCH_CHECK(weight_.scalar_type() != at::kChar || (sums_ && scales_), "int8 without scales");
  }

  // x [T, inputs] -> [T, outputs], in `buffer` or in a tensor of its own.
  Tensor run(const Tensor& x, const LinearLayer* next, Buffer& buffer) const {
    if (weight_.is_mkldnn()) return multiply_by_onednn(x);
    if (!is_packed()) return at::linear(x, weight_, bias_);
    const Tensor& out = buffer.matrix(x.size(0), outputs_, x);
    Following after = next && next->is_packed() ? following(next->weight_) : Following{};
    if (sums_)
      int8_linear_out(x, weight_, *sums_, *scales_, bias_, after, out);
    else
      packed_linear_out(x, weight_, bias_, after, out);
    return out;
  }

 private:
  bool is_packed() const { return !weight_.is_mkldnn() && weight_.dim() == 4; }

  Tensor multiply_by_onednn(const Tensor& x) const {
    using Scalars = c10::List<std::optional<at::Scalar>>;
    using Product = Tensor(const Tensor&, const Tensor&, const MaybeTensor&, std::string_view,
                           Scalars, std::optional<std::string_view>);
    static auto product = c10::Dispatcher::singleton()
                              .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                              .typed<Product>();
    return product.call(x, weight_, bias_, "none", Scalars(), "");
  }

  Tensor weight_;
  int64_t outputs_;
  MaybeTensor bias_, sums_, scales_;
};

using NormPointer = c10::intrusive_ptr<NormLayer>;
using LinearPointer = c10::intrusive_ptr<LinearLayer>;

// One layer. qkv gives [T, (heads + 2 * kv_heads) * dim], inner [T, 2 * intermediate].
struct DecoderLayer {
  int64_t heads, kv_heads, dim;
  NormPointer attention_norm;
  LinearPointer qkv;
  std::optional<NormPointer> query_norm, key_norm;
  bool is_rotary;
  double scale;
  std::optional<int64_t> window;
  std::optional<double> softcap;
  MaybeTensor sinks;
  LinearPointer out;
  NormPointer mlp_norm;
  LinearPointer inner;
  Gate gate;
  LinearPointer down;
};

// The rows of a step: first one of each sequence that decodes, then those of prompt chunks.
struct StepRows {
  Tensor cos, sin, slots;
  MaybeTensor tables, positions;              // of rows that decode
  MaybeTensor chunk_tables, starts, lengths;  // of chunks
};

// One run at a time.
class Decoder : public torch::CustomClassHolder {
 public:
  void add_layer(std::tuple<int64_t, int64_t, int64_t> heads, NormPointer attention_norm,
                 LinearPointer qkv, std::optional<NormPointer> query_norm,
                 std::optional<NormPointer> key_norm, bool is_rotary, double scale,
                 std::optional<int64_t> window, std::optional<double> softcap, MaybeTensor sinks,
                 LinearPointer out, NormPointer mlp_norm, LinearPointer inner,
                 const std::string& gate, LinearPointer down) {
    TORCH_CHECK(gate == "silu" || gate == "gelu_tanh", "no such gate: ", gate);
    if (sinks) sinks = sinks->to(at::kFloat).contiguous();
    auto [query_heads, kv_heads, dim] = heads;
    layers_.push_back({query_heads, kv_heads, dim, attention_norm, qkv, query_norm, key_norm,
                       is_rotary, scale, window, softcap, sinks, out, mlp_norm, inner,
                       gate == "silu" ? Gate::silu : Gate::gelu_tanh, down});
  }

  // hidden [T, n] -> [T, n]. caches: of each layer; the other arguments: as in StepRows.
  Tensor run(const Tensor& hidden, const Tensor& cos, const Tensor& sin, const Tensor& slots,
             const std::vector<Tensor>& key_caches, const std::vector<Tensor>& value_caches,
             const MaybeTensor& tables, const MaybeTensor& positions,
             const MaybeTensor& chunk_tables, const MaybeTensor& starts,
             const MaybeTensor& lengths) {
    TORCH_CHECK(hidden.dim() == 2 && !layers_.empty() && key_caches.size() == layers_.size() &&
                value_caches.size() == layers_.size(), "one pair of caches per layer expected");
    TORCH_CHECK(bool(tables) == bool(positions) && bool(chunk_tables) == bool(starts) &&
                bool(starts) == bool(lengths), "something of the rows is missing");
    StepRows rows{cos, sin, slots, tables, positions, chunk_tables, starts, lengths};
    int64_t tokens = hidden.size(0), width = hidden.size(1);
    const Tensor &x = x_.matrix(tokens, width, hidden), &normal = normal_.matrix(tokens, width, x);
    rms_norm_out(hidden, *layers_[0].attention_norm, normal);
    Tensor added;
    for (size_t i = 0; i < layers_.size(); i++) {
      const DecoderLayer& layer = layers_[i];
      const DecoderLayer* after = i + 1 < layers_.size() ? &layers_[i + 1] : nullptr;
      Tensor qkv = layer.qkv->run(normal, layer.out.get(), qkv_);
      Tensor attended = attend(layer, rows, qkv, key_caches[i], value_caches[i]);
      added = layer.out->run(attended, layer.inner.get(), added_);
      add_rms_norm_out(added, i ? x : hidden, *layer.mlp_norm, x, normal);
      Tensor merged = layer.inner->run(normal, layer.down.get(), merged_);
      const Tensor& gated = gated_.matrix(tokens, merged.size(1) / 2, merged);
      gated_out(layer.gate, merged, gated);
      added = layer.down->run(gated, after ? after->qkv.get() : nullptr, added_);
      if (after) add_rms_norm_out(added, x, *after->attention_norm, x, normal);
    }
    return sum_of(x, added);
  }

 private:
  // qkv [T, ...] -> [T, heads * dim]
  Tensor attend(const DecoderLayer& layer, const StepRows& rows, const Tensor& qkv,
                const Tensor& keys, const Tensor& values) {
    int64_t tokens = qkv.size(0), heads = layer.heads, kv_heads = layer.kv_heads, dim = layer.dim;
    Tensor all = qkv.view({tokens, heads + 2 * kv_heads, dim});
    Tensor key = all.narrow(1, heads, kv_heads), value = all.narrow(1, heads + kv_heads, kv_heads);
    Tensor query = query_.matrix(tokens, heads * dim, qkv).view({tokens, heads, dim});
    auto norm = [](const std::optional<NormPointer>& it) { return it ? it->get() : nullptr; };
    Tensor cos = layer.is_rotary ? rows.cos : rows.cos.narrow(1, 0, 0).contiguous();
    Tensor sin = layer.is_rotary ? rows.sin : cos;
    heads_to_cache(all.narrow(1, 0, heads), key, value, norm(layer.query_norm),
                   norm(layer.key_norm), {cos, sin, rows.slots}, keys, values, query, key);
    const Tensor& out = attended_.matrix(tokens, heads * dim, qkv);
    attend_cached(layer, rows, query, keys, values, out.view({tokens, heads, dim}));
    return out;
  }

  void attend_cached(const DecoderLayer& layer, const StepRows& rows, const Tensor& query,
                     const Tensor& keys, const Tensor& values, const Tensor& out) {
    int64_t decodes = rows.positions ? rows.positions->numel() : 0, others = query.size(0) - decodes;
    by_dtype({query, keys, values}, [&](auto t) {
      if (decodes)
        Decode(query.narrow(0, 0, decodes), keys, values, *rows.tables, *rows.positions,
               layer.scale, layer.window, layer.softcap, layer.sinks, out.narrow(0, 0, decodes))
            .template run<decltype(t)>();
      TORCH_CHECK(!others || rows.chunk_tables, others, " rows of no chunk");
      if (others)
        Prefill(query.narrow(0, decodes, others), keys, values, *rows.chunk_tables, *rows.starts,
                *rows.lengths, layer.scale, layer.window, layer.softcap, layer.sinks,
                out.narrow(0, decodes, others))
            .template run<decltype(t)>();
    });
  }

  std::vector<DecoderLayer> layers_;
  Buffer x_, normal_, qkv_, query_, attended_, added_, merged_, gated_;
};

}  // namespace millstream
