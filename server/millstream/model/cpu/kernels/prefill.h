// Attention of prompt chunks: from tensors to units of work, each of them rows of one key head.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "caches.h"
#include "prompt_tile.h"
#include "tensors.h"

namespace millstream {

class Prefill {
 public:
  Prefill(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& tables,
          const Tensor& starts, const Tensor& lengths, double scale, std::optional<int64_t> window,
          std::optional<double> softcap, const MaybeTensor& sinks, const Tensor& out)
      : query_(query), out_(out), keys_(keys), values_(values), tables_(tables), num_blocks_(keys.size(0)),
        width_(tables.size(1)), window_(window.value_or(0)),
        shape_(shape_of(query, keys, values, scale, window, softcap, sinks)) {
    check_result(query, shape_, out);
    TORCH_CHECK(starts.numel() == tables.size(0) && lengths.numel() == tables.size(0),
                "one table, start and length per chunk");
    if (sinks) sinks_ = sinks->to(at::kFloat).contiguous();
    Indices start_of(starts), length_of(lengths);
    int64_t row = 0;
    for (int64_t number = 0; number < starts.numel(); number++) {
      int64_t start = start_of[number], length = length_of[number];
      TORCH_CHECK(start >= 0 && length > 0 && start + length <= width_ * shape_.block_size,
                  "chunk ", number, " is beyond its table");
      chunks_.push_back({row, start, length});
      row += length;
      for (int64_t kv_head = 0; kv_head < shape_.kv_heads; kv_head++)
        for (int64_t lane = 0; lane < length * shape_.group(); lane += LANES)
          units_.push_back({number, kv_head, lane});
    }
    TORCH_CHECK(row == query.size(0), "the chunks have ", row, " tokens, the query ",
                query.size(0));
  }

  template <typename T>
  void run() {
    std::vector<std::unique_ptr<PromptTile<T>>> tiles(num_threads());
    each_unit(units_.size(), [&](int64_t unit, int slot) {
      if (!tiles[slot]) tiles[slot] = std::make_unique<PromptTile<T>>(shape_);
      attend_unit<T>(units_[unit], *tiles[slot]);
    });
  }

 private:
  struct Chunk {
    int64_t row, start, length;  // its first row in the query; the position of that; tokens
  };
  struct Unit {
    int64_t chunk, kv_head, lane;  // the first of its rows, among heads of that chunk's tokens
  };

  template <typename T>
  void attend_unit(const Unit& unit, PromptTile<T>& tile) {
    const Chunk& chunk = chunks_[unit.chunk];
    int64_t group = shape_.group(), offsets[LANES];
    int32_t positions[LANES];
    int count = std::min<int64_t>(LANES, chunk.length * group - unit.lane);
    for (int i = 0; i < count; i++) {
      int64_t token = (unit.lane + i) / group, head = unit.kv_head * group + (unit.lane + i) % group;
      positions[i] = chunk.start + token;
      offsets[i] = (chunk.row + token) * shape_.heads + head;
    }
    int64_t rows[LANES];
    for (int i = 0; i < count; i++) rows[i] = offsets[i] * shape_.dim;
    tile.begin(data<T>(query_), rows, positions, count);
    int64_t first = window_ ? std::max<int64_t>(0, positions[0] - window_ + 1) : 0;
    int64_t end = positions[count - 1] + 1;
    for (int64_t begin = first / KEY_TILE * KEY_TILE; begin < end; begin += KEY_TILE) {
      int keys = std::min<int64_t>(KEY_TILE, end - begin);
      copy_tokens<T>(unit, begin, keys, tile);
      bool is_masked = begin + keys - 1 > positions[0] || (window_ && begin < end - window_);
      tile.attend(begin, keys, window_, is_masked);
    }
    const float* sinks = sinks_.defined() ? data<float>(sinks_) : nullptr;
    for (int i = 0; i < count; i++)
      tile.finish(i, sinks ? sinks + offsets[i] % shape_.heads : nullptr,
                  data<T>(out_) + offsets[i] * shape_.value_dim);
  }

  template <typename T>
  void copy_tokens(const Unit& unit, int64_t begin, int count, PromptTile<T>& tile) {
    int64_t slots[KEY_TILE];
    for (int i = 0; i < count;) {
      int64_t position = begin + i, offset = position % shape_.block_size;
      int64_t block = tables_[unit.chunk * width_ + position / shape_.block_size];
      TORCH_CHECK(block >= 0 && block < num_blocks_, "block ", block, " does not exist");
      for (; offset < shape_.block_size && i < count; offset++, i++)
        slots[i] = block * shape_.block_size + offset;
    }
    tile.set_tokens(data<T>(keys_) + unit.kv_head * shape_.dim,
                    data<T>(values_) + unit.kv_head * shape_.value_dim, slots, count);
  }

  Tensor query_, out_, keys_, values_, sinks_;
  Indices tables_;
  int64_t num_blocks_, width_, window_;
  Shape shape_;
  std::vector<Chunk> chunks_;
  std::vector<Unit> units_;
};

}  // namespace millstream
