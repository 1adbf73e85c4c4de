// Attention of decode rows: from tensors to units of work for the threads of pool.h.
#pragma once

#include <ATen/ops/empty.h>

#include <atomic>
#include <vector>

#include "attention.h"
#include "attention_bf16.h"
#include "caches.h"
#include "tensors.h"

namespace millstream {

// Which spans of which rows there are, and where their partial results lie.
struct Spans {
  struct Row {
    int64_t first, last, start;  // positions seen; number of its first span
    int64_t count() const { return (last - first) / SPAN + 1; }
  };
  std::vector<Row> rows;
  std::vector<int32_t> row_of;  // of each span

  // limit: positions that a block table has room for
  Spans(const Tensor& positions, std::optional<int64_t> window, int64_t limit) {
    Indices position_of(positions);
    for (int64_t row = 0; row < positions.numel(); row++) {
      int64_t last = position_of[row];
      TORCH_CHECK(last >= 0 && last < limit, "position ", last, " is beyond its table");
      int64_t first = window ? std::max<int64_t>(0, last - *window + 1) : 0;
      rows.push_back({first, last, int64_t(row_of.size())});
      row_of.insert(row_of.end(), rows.back().count(), row);
    }
  }
};

class Decode {
 public:
  Decode(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& tables,
         const Tensor& positions, double scale, std::optional<int64_t> window,
         std::optional<double> softcap, const MaybeTensor& sinks, const Tensor& out)
      : query_(query), out_(out), keys_(keys), values_(values), num_blocks_(keys.size(0)),
        tables_(tables), width_(tables.size(1)),
        shape_(shape_of(query, keys, values, scale, window, softcap, sinks)),
        spans_(positions, window, tables.size(1) * keys.size(1)) {
    TORCH_CHECK(tables.size(0) == query.size(0) && positions.numel() == query.size(0),
                "one table and one position per row");
    check_result(query, shape_, out);
    if (sinks) sinks_ = sinks->to(at::kFloat).contiguous();
  }

  template <typename T>
  void run() {
    int64_t size = shape_.heads * (2 + shape_.value_dim), spans = spans_.row_of.size();
    Tensor scratch = at::empty({spans * size}, at::kFloat);
    std::vector<Partial> partials;
    for (int64_t span = 0; span < spans; span++) {
      float* start = data<float>(scratch) + span * size;
      partials.push_back({start, start + shape_.heads, start + 2 * shape_.heads});
    }
    std::vector<std::atomic<int>> done(spans_.rows.size());
    std::vector<std::vector<float>> scores(num_threads());
    // Heads do not depend on each other: where there are few spans, threads share one.
    int64_t threads = num_threads(), wanted = spans ? (2 * threads + spans - 1) / spans : 1;
    int64_t parts = std::min(wanted, shape_.kv_heads);
    each_unit(spans * parts, [&](int64_t unit, int slot) {
      int64_t span = unit / parts, part = unit % parts;
      const Spans::Row& row = spans_.rows[spans_.row_of[span]];
      scores[slot].resize(shape_.heads * SPAN);
      int64_t head = part * shape_.kv_heads / parts, end = (part + 1) * shape_.kv_heads / parts;
      attend_unit<T>(span, row, {head, end}, scores[slot].data(), partials[span]);
      // Whoever finishes a row's last span merges them; the order of the merge is fixed.
      if (done[spans_.row_of[span]].fetch_add(1) + 1 == row.count() * parts)
        merge_row<T>(spans_.row_of[span], &partials[row.start], row.count());
    });
  }

 private:
  struct Heads {
    int64_t first, end;  // key heads
  };

  template <typename T>
  void attend_unit(int64_t span, const Spans::Row& row, Heads heads, float* scores,
                   Partial partial) {
    int64_t number = spans_.row_of[span], begin = row.first + (span - row.start) * SPAN;
    int count = std::min<int64_t>(SPAN, row.last + 1 - begin);
    int64_t slots[SPAN];
    for (int i = 0; i < count;) {
      int64_t position = begin + i, offset = position % shape_.block_size;
      int64_t block = tables_[number * width_ + position / shape_.block_size];
      TORCH_CHECK(block >= 0 && block < num_blocks_, "block ", block, " does not exist");
      for (; offset < shape_.block_size && i < count; offset++, i++)
        slots[i] = block * shape_.block_size + offset;
    }
    Tokens<T> tokens{data<T>(keys_) + heads.first * shape_.dim,
                     data<T>(values_) + heads.first * shape_.value_dim,
                     shape_.kv_heads * shape_.dim,
                     shape_.kv_heads * shape_.value_dim,
                     slots,
                     count};
    Shape shape = shape_;
    shape.kv_heads = heads.end - heads.first;
    shape.heads = shape.kv_heads * shape_.group();
    int64_t head = heads.first * shape_.group();
    partial = {partial.max + head, partial.weight + head,
               partial.values + head * shape_.value_dim};
    const T* query = data<T>(query_) + (number * shape_.heads + head) * shape_.dim;
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, bf16>)
      if (can_tile(shape)) return attend_span_tiled(shape, query, tokens, scores, partial);
#endif
    attend_span<T>(shape, query, tokens, scores, partial);
  }

  template <typename T>
  void merge_row(int64_t number, const Partial* spans, int count) {
    const float* sinks = sinks_.defined() ? data<float>(sinks_) : nullptr;
    for (int64_t head = 0; head < shape_.heads; head++) {
      T* to = data<T>(out_) + (number * shape_.heads + head) * shape_.value_dim;
      merge_spans<T>(spans, count, head, sinks ? sinks + head : nullptr, shape_.value_dim, to);
    }
  }

  Tensor query_, out_, keys_, values_, sinks_;
  int64_t num_blocks_;
  Indices tables_;
  int64_t width_;
  Shape shape_;
  Spans spans_;
};

}  // namespace millstream
