// Attention of prompt chunks over a paged cache, tile by tile (FlashAttention).
//
// The keys of a sequence are cut into tiles at fixed positions, counted from its first token, and a
// row takes them in order. So a row's result depends on that row only: not on where its chunk
// begins, not on its neighbours and not on the number of threads.
//
// Everything lies with the query rows side by side, one to a lane: the query heads that share a key
// head, of one token after the other. Keys then need no transposing, and softmax no sums across
// lanes. With bfloat16 instructions two elements of the depth are multiplied at a time.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "attention.h"
#include "prompt_matrix.h"
#include "prompt_products.h"

namespace millstream {

// What a thread works in.
template <typename T>
class PromptTile {
  using E = Operand<T>;
  static constexpr float LOWEST = -std::numeric_limits<float>::infinity();

 public:
  explicit PromptTile(const Shape& shape)
      : shape_(shape), unit_(shape.softcap ? 1 : shape.scale), depth_(padded(shape.dim, PAIR<E>)),
        channels_(padded(shape.value_dim, ROWS_AT_ONCE)),
        in_matrix_(can_use_matrix(shape, static_cast<const E*>(nullptr))), query_(depth_ * LANES),
        keys_(KEY_TILE * depth_), values_(KEY_TILE * channels_), weights_(KEY_TILE * LANES),
        scores_(KEY_TILE * LANES), out_(channels_ * LANES) {}

  // Begins with `count` rows: lane l is head heads[l] of the token at row tokens[l].
  void begin(const T* query, const int64_t* offsets, const int32_t* positions, int count) {
    std::fill(query_.begin(), query_.end(), E{});
    std::fill(out_.begin(), out_.end(), 0.0f);
    for (int lane = 0; lane < LANES; lane++) {
      positions_[lane] = positions[std::min(lane, count - 1)];
      most_[lane] = LOWEST;
      total_[lane] = 0;
      if (lane < count) set_query(query + offsets[lane], &query_[lane * PAIR<E>]);
    }
  }

  // Copies the tokens of a tile, with zeros in the place of the second one of a pair that is not
  // whole.
  void set_tokens(const T* keys, const T* values, const int64_t* slots, int count) {
    for (int k = 0; k < count; k++) {
      const T* key = keys + slots[k] * shape_.kv_heads * shape_.dim;
      for (int64_t i = 0; i < shape_.dim; i++) convert(key[i], &keys_[k * depth_ + i]);
    }
    int64_t stride = shape_.kv_heads * shape_.value_dim;
    if (in_matrix_) return set_values_by_channel(values, stride, slots, count);
    for (int k = 0; k < count; k += PAIR<E>)
      set_values(values + slots[k] * stride,
                 k + 1 < count ? values + slots[k + 1] * stride : nullptr, &values_[k * channels_]);
  }

  // Attends the tile's first `count` tokens, the first of them at position `first`.
  void attend(int32_t first, int count, int64_t window, bool is_masked) {
    score(count);
    for (int vec = 0; vec < LANE_VECS; vec++) {
      if (is_masked || shape_.softcap)
        soften<true>(vec * WIDTH, first, count, window);
      else
        soften<false>(vec * WIDTH, first, count, window);
    }
    add_values(count);
  }

  // The finished row of a lane.
  void finish(int lane, const float* sink, T* to) {
    float total = total_[lane], scale = 1;
    if (sink) {
      float own = most_[lane] * unit_, most = std::max(own, *sink);
      scale = std::exp(own - most);
      total = total * scale + std::exp(*sink - most);
    }
    each_vector(shape_.value_dim, [&](int64_t i, auto count) {
      Vec values = {};
#pragma GCC unroll 16
      for (int k = 0; k < count; k++) values[k] = out_[(i + k) * LANES + lane];
      store_some(to + i, values * scale / total, count);
    });
  }

 private:
  void set_query(const T* from, float* to) {
    for (int64_t i = 0; i < shape_.dim; i++) to[i * LANES] = to_float(from[i]);
  }
  void set_query(const bf16* from, bf16* to) {
    int64_t i = 0;
    for (; i + 2 <= shape_.dim; i += 2) std::memcpy(to + i * LANES, from + i, 2 * sizeof(bf16));
    if (i < shape_.dim) to[i * LANES] = from[i];
  }

  // The values of a token, or of two side by side; the second one may be missing.
  void set_values(const T* first, const T* second, float* to) {
    for (int64_t i = 0; i < shape_.value_dim; i++) to[i] = to_float(first[i]);
  }
  void set_values(const T* first, const T* second, bf16* to) {
    auto low = reinterpret_cast<const uint16_t*>(first);
    auto high = reinterpret_cast<const uint16_t*>(second);
    auto both = reinterpret_cast<uint32_t*>(to);
    for (int64_t i = 0; i < shape_.value_dim; i++)
      both[i] = low[i] | (high ? uint32_t(high[i]) << 16 : 0);
  }

#if MILLSTREAM_HAS_MATRIX_PROMPTS
  void set_values_by_channel(const bf16* values, int64_t stride, const int64_t* slots, int count) {
    values_by_channel(values, stride, slots, count, channels_, KEY_TILE, values_.data());
  }
#endif
  template <typename Other>
  void set_values_by_channel(const Other*, int64_t, const int64_t*, int) {}

  void score(int count) {
#if MILLSTREAM_HAS_MATRIX_PROMPTS
    if constexpr (std::is_same_v<E, bf16>)
      if (in_matrix_) {
        TileSetting setting;
        return multiply_matrices<LANES>(keys_.data(), depth_, query_.data(), depth_,
                                        padded(count, TILE_ROWS), false, scores_.data());
      }
#endif
    multiply_tile<E>(keys_.data(), depth_, PAIR<E>, query_.data(), depth_ / PAIR<E>,
                     padded(count, ROWS_AT_ONCE), false, scores_.data());
  }

  void add_values(int count) {
    int depth = padded(count, PAIR<E>);
#if MILLSTREAM_HAS_MATRIX_PROMPTS
    if constexpr (std::is_same_v<E, bf16>)
      if (in_matrix_) {
        int whole = padded(count, MATRIX_DEPTH);
        std::fill(weights_.data() + depth * LANES, weights_.data() + whole * LANES, E{});
        TileSetting setting;
        return multiply_matrices<LANES>(values_.data(), KEY_TILE, weights_.data(), whole, channels_,
                                        true, out_.data());
      }
#endif
    multiply_tile<E>(values_.data(), PAIR<E>, channels_ * PAIR<E>, weights_.data(),
                     depth / PAIR<E>, channels_, true, out_.data());
  }

  // Scores of a tile become weights of this and all earlier tiles before division.
  template <bool IS_MASKED>
  void soften(int lane, int32_t first, int count, int64_t window) {
    IntVec position;
    std::memcpy(&position, positions_ + lane, sizeof position);
    float* scores = scores_.data() + lane;
    Vec before = load(most_ + lane), most = before;
    for (int k = 0; k < count; k++) {
      Vec score = load(scores + k * LANES);
      if (IS_MASKED) {
        if (shape_.softcap) score = shape_.softcap * tanh(score * (shape_.scale / shape_.softcap));
        IntVec seen = position >= first + k;
        if (window) seen &= position < first + k + int32_t(window);
        score = seen ? score : splat(LOWEST);
        store(scores + k * LANES, score);
      }
      most = larger(score, most);
    }
    store(most_ + lane, most);
    // Rows that have seen nothing yet: any finite number will do.
    Vec base = most == LOWEST ? Vec{} : most;
    auto weigh = [&](Vec score) { return weight_of(score, base, unit_, E{}); };
    Vec change = weigh(before), total = load(total_ + lane) * change;
    E* weights = weights_.data() + lane * PAIR<E>;
    for (int k = 0; k < count; k += 2) {
      Vec one = weigh(load(scores + k * LANES));
      Vec two = k + 1 < count ? weigh(load(scores + (k + 1) * LANES)) : Vec{};
      total += one;
      total += two;
      store_weights(weights + k * LANES, one, two);
    }
    store(total_ + lane, total);
    if (all_equal(change, splat(1))) return;
    for (int64_t i = 0; i < channels_; i++) {
      float* out = &out_[i * LANES + lane];
      store(out, load(out) * change);
    }
  }

  const Shape& shape_;
  float unit_;  // scores times this are what softmax is of; positive, so it can wait
  int64_t depth_, channels_;
  bool in_matrix_;
  Lines<E> query_, keys_, values_, weights_;
  Lines<float> scores_, out_;
  int32_t positions_[LANES];
  float most_[LANES], total_[LANES];
};

}  // namespace millstream
