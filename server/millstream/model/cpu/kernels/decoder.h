// All decoder layers of a model in one call: what DecoderStack in decoder/stack.py computes, without
// Python between the operations; and what most models have before and after them. Results live in
// buffers that stay from step to step, so that the operating system need not hand out and clear
// memory in every layer.
#pragma once

#include <torch/custom_class.h>

#include <utility>
#include <vector>

#include "decode.h"
#include "decoder_parts.h"
#include "row_kernels.h"
#include "prefill.h"

namespace millstream {

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

constexpr int64_t MOST_EXPECTED = 4 << 20;  // bytes

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

  // What is before the layers and after them. embedding [vocab, n]
  void set_ends(Tensor embedding, NormPointer norm, LinearPointer head) {
    embedding_ = std::move(embedding);
    last_norm_ = norm;
    head_ = head;
  }

  // token_ids, positions [T] -> logits [rows, vocab] of the tokens numbered `wanted` [rows].
  // cos, sin [positions, r]: of every position. last: positions of rows that decode. The other
  // arguments: as of run().
  Tensor logits(const Tensor& token_ids, const Tensor& positions, const Tensor& wanted,
                const Tensor& cos, const Tensor& sin, const Tensor& slots,
                const std::vector<Tensor>& key_caches, const std::vector<Tensor>& value_caches,
                const MaybeTensor& tables, const MaybeTensor& last,
                const MaybeTensor& chunk_tables, const MaybeTensor& starts,
                const MaybeTensor& lengths) {
    TORCH_CHECK(head_, "only the layers are known");
    Tensor hidden = rows_of(embedding_, token_ids, embedded_);
    StepRows rows{rows_of(cos, positions, cos_), rows_of(sin, positions, sin_), slots, tables, last,
                  chunk_tables, starts, lengths};
    std::optional<LastRows> some;
    if (chunk_tables && wanted.numel() < hidden.size(0)) some.emplace(rows, hidden.size(0), wanted);
    Tensor found = run_layers(hidden, rows, key_caches, value_caches, some ? &*some : nullptr);
    const Tensor& normal = rows_of(found, some ? some->wanted : wanted, normal_);
    rms_norm_out(normal, *last_norm_, normal);
    Buffer fresh;
    return head_->run(normal, fresh, nullptr, prefetch_queue_);
  }

  // hidden [T, n] -> [T, n]. caches: of each layer; the other arguments: as in StepRows.
  Tensor run(const Tensor& hidden, const Tensor& cos, const Tensor& sin, const Tensor& slots,
             const std::vector<Tensor>& key_caches, const std::vector<Tensor>& value_caches,
             const MaybeTensor& tables, const MaybeTensor& positions,
             const MaybeTensor& chunk_tables, const MaybeTensor& starts,
             const MaybeTensor& lengths) {
    StepRows rows{cos, sin, slots, tables, positions, chunk_tables, starts, lengths};
    return run_layers(hidden, rows, key_caches, value_caches, nullptr);
  }

 private:
  // last: if given, other rows end with the last layer's keys and values; gives those rows only.
  Tensor run_layers(const Tensor& hidden, const StepRows& rows,
                    const std::vector<Tensor>& key_caches, const std::vector<Tensor>& value_caches,
                    const LastRows* last) {
    TORCH_CHECK(hidden.dim() == 2 && !layers_.empty() && key_caches.size() == layers_.size() &&
                value_caches.size() == layers_.size(), "one pair of caches per layer expected");
    TORCH_CHECK(bool(rows.tables) == bool(rows.positions) &&
                bool(rows.chunk_tables) == bool(rows.starts) &&
                bool(rows.starts) == bool(rows.lengths), "something of the rows is missing");
    int64_t tokens = hidden.size(0), width = hidden.size(1);
    Tensor before = hidden;
    Tensor x = x_.matrix(tokens, width, hidden), normal = normal_.matrix(tokens, width, x);
    rms_norm_out(hidden, *layers_[0].attention_norm, normal);
    prefetch_queue_.clear();
    Tensor added;
    for (size_t i = 0; i < layers_.size(); i++) {
      const DecoderLayer& layer = layers_[i];
      const DecoderLayer* after = i + 1 < layers_.size() ? &layers_[i + 1] : nullptr;
      Tensor qkv = layer.qkv->run(normal, qkv_, layer.out.get(), prefetch_queue_);
      Tensor query = to_cache(layer, rows, qkv, key_caches[i], value_caches[i]);
      if (last && !after) {
        if (!last->rows.numel()) return before.narrow(0, 0, 0);
        query = rows_of(query, last->rows, last_query_);
        before = rows_of(before, last->rows, last_hidden_);
        tokens = last->rows.numel();
        x = x_.matrix(tokens, width, hidden), normal = normal_.matrix(tokens, width, x);
      }
      const Tensor& attended = attended_.matrix(tokens, query.size(1), qkv);
      attend_cached(layer, last && !after ? last->attended : rows, query, key_caches[i],
                    value_caches[i], attended);
      prefetch_queue_.clear();
      if (after && tokens > LINEAR_ROWS)  // fewer rows ask for nothing
        expect(*after, rows, key_caches[i + 1], value_caches[i + 1]);
      added = layer.out->run(attended, added_, layer.inner.get(), prefetch_queue_);
      add_rms_norm_out(added, before, *layer.mlp_norm, x, normal);
      before = x;
      Tensor merged = layer.inner->run(normal, merged_, layer.down.get(), prefetch_queue_);
      const Tensor& gated = gated_.matrix(tokens, merged.size(1) / 2, merged);
      gated_out(layer.gate, merged, gated);
      added = layer.down->run(gated, added_, after ? after->qkv.get() : nullptr, prefetch_queue_);
      if (after) add_rms_norm_out(added, x, *after->attention_norm, x, normal);
    }
    return sum_of(x, added);
  }

  // qkv [T, ...] -> queries [T, heads * dim]
  Tensor to_cache(const DecoderLayer& layer, const StepRows& rows, const Tensor& qkv,
                  const Tensor& keys, const Tensor& values) {
    int64_t tokens = qkv.size(0), heads = layer.heads, kv_heads = layer.kv_heads, dim = layer.dim;
    Tensor all = qkv.view({tokens, heads + 2 * kv_heads, dim});
    Tensor key = all.narrow(1, heads, kv_heads), value = all.narrow(1, heads + kv_heads, kv_heads);
    Tensor query = query_.matrix(tokens, heads * dim, qkv);
    auto norm = [](const std::optional<NormPointer>& it) { return it ? it->get() : nullptr; };
    Tensor cos = layer.is_rotary ? rows.cos : rows.cos.narrow(1, 0, 0).contiguous();
    Tensor sin = layer.is_rotary ? rows.sin : cos;
    heads_to_cache(all.narrow(1, 0, heads), key, value, norm(layer.query_norm),
                   norm(layer.key_norm), {cos, sin, rows.slots}, keys, values,
                   query.view({tokens, heads, dim}), key);
    return query;
  }

  // table [n, columns], indices [T] -> [T, columns]
  static const Tensor& rows_of(const Tensor& table, const Tensor& indices, Buffer& buffer) {
    TORCH_CHECK(table.dim() == 2 && table.is_contiguous(), "a contiguous matrix expected");
    Indices index(indices);
    int64_t rows = indices.numel(), size = table.size(1) * table.element_size();
    const Tensor& out = buffer.matrix(rows, table.size(1), table);
    auto from = data<char>(table), to = data<char>(out);
    each_row(rows, size, [&](int64_t row) {
      TORCH_CHECK(index[row] >= 0 && index[row] < table.size(0), "there is no row ", index[row]);
      std::memcpy(to + row * size, from + index[row] * size, size);
    });
    return out;
  }

  // The products up to a layer's attention ask for what its decode rows see in the cache, the first
  // rows' first: as much as stays in the processor's cache until then.
  void expect(const DecoderLayer& layer, const StepRows& rows, const Tensor& keys,
              const Tensor& values) {
    if (!rows.positions) return;
    Indices positions(*rows.positions), blocks(*rows.tables);
    int64_t width = rows.tables->size(1), block_size = keys.size(1);
    for (int64_t row = 0; row < rows.positions->numel(); row++) {
      int64_t last = positions[row];
      int64_t first = layer.window ? std::max<int64_t>(0, last - *layer.window + 1) : 0;
      for (int64_t i = first / block_size; i <= std::min(last / block_size, width - 1); i++) {
        if (prefetch_queue_.size() >= MOST_EXPECTED) return;
        for (const Tensor* cache : {&keys, &values}) {
          int64_t size = cache->stride(0) * cache->element_size();
          prefetch_queue_.add(data<char>(*cache) + blocks[row * width + i] * size, size);
        }
      }
    }
  }

  // queries [T, heads * dim] -> to [T, heads * dim]
  void attend_cached(const DecoderLayer& layer, const StepRows& rows, const Tensor& queries,
                     const Tensor& keys, const Tensor& values, const Tensor& to) {
    int64_t decodes = rows.decodes(), others = queries.size(0) - decodes;
    Tensor query = queries.view({-1, layer.heads, layer.dim});
    Tensor out = to.view({-1, layer.heads, layer.dim});
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
  Tensor embedding_;
  NormPointer last_norm_;
  LinearPointer head_;
  PrefetchQueue prefetch_queue_;
  Buffer embedded_, cos_, sin_, x_, normal_, qkv_, query_, attended_, added_, merged_, gated_,
      last_query_, last_hidden_;
};

}  // namespace millstream
