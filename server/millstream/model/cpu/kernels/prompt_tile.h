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
#include "elementwise.h"

namespace millstream {

constexpr int LANES = 64;      // query rows of a unit of work
constexpr int KEY_TILE = 64;   // tokens whose keys and values are copied and used together
constexpr int LANE_VECS = LANES / WIDTH;
constexpr int ROWS_AT_ONCE = WIDTH == 16 ? 4 : 2;
constexpr int COLUMNS_AT_ONCE = std::min(4, LANE_VECS);

// What operands of matrix products are stored as, and how many of them one lane multiplies.
#if defined(__AVX512BF16__)
template <typename T>
using Operand = T;
INLINE Vec multiply_add_lanes(Vec acc, const bf16* one, const bf16* each) {
  int32_t pair;
  std::memcpy(&pair, one, sizeof pair);
  return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(pair),
                               (__m512bh)_mm512_loadu_si512(each));
}
#else
template <typename T>
using Operand = float;
#endif
INLINE Vec multiply_add_lanes(Vec acc, const float* one, const float* each) {
  return acc + *one * load(each);
}
template <typename E>
constexpr int PAIR = 4 / sizeof(E);

INLINE void convert(float from, float* to) { *to = from; }
INLINE void convert(bf16 from, float* to) { *to = to_float(from); }
INLINE void convert(bf16 from, bf16* to) { *to = from; }

// c[row][lane] = (add ? c : 0) + sum over k of a[row][k] * b[k][lane], for `rows` rows, a multiple
// of ROWS_AT_ONCE. depth: in pairs; b [depth, LANES, pair].
template <typename E>
void multiply_tile(const E* a, int64_t row_stride, int64_t depth_stride, const E* b, int depth,
                   int rows, bool add, float* c) {
  for (int row = 0; row < rows; row += ROWS_AT_ONCE)
    for (int first = 0; first < LANE_VECS; first += COLUMNS_AT_ONCE) {
      Vec acc[ROWS_AT_ONCE][COLUMNS_AT_ONCE];
      float* to = c + row * LANES + first * WIDTH;
#pragma GCC unroll 4
      for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 4
        for (int v = 0; v < COLUMNS_AT_ONCE; v++)
          acc[r][v] = add ? load(to + r * LANES + v * WIDTH) : Vec{};
      const E* left = a + row * row_stride;
      const E* right = b + first * WIDTH * PAIR<E>;
      for (int k = 0; k < depth; k++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 4
          for (int v = 0; v < COLUMNS_AT_ONCE; v++)
            acc[r][v] = multiply_add_lanes(acc[r][v], left + r * row_stride,
                                           right + v * WIDTH * PAIR<E>);
        left += depth_stride;
        right += LANES * PAIR<E>;
      }
#pragma GCC unroll 4
      for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 4
        for (int v = 0; v < COLUMNS_AT_ONCE; v++) store(to + r * LANES + v * WIDTH, acc[r][v]);
    }
}

// Two rows of weights as operands: for each lane both of them, or one row after the other.
INLINE void store_weights(float* to, Vec first, Vec second) {
  store(to, first);
  store(to + LANES, second);
}
#if defined(__AVX512BF16__)
INLINE void store_weights(bf16* to, Vec first, Vec second) {
  const __m512i in_turns = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
      3, 18, 2, 17, 1, 16, 0);
  auto both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(in_turns, both));
}
#endif

// e^(unit * (score - most)), as precisely as the operand that it becomes.
INLINE Vec weight_of(Vec score, Vec most, float unit, float) { return exp((score - most) * unit); }
INLINE Vec weight_of(Vec score, Vec most, float unit, bf16) {
  float turn = unit * 1.44269504f;
  return rough_exp2(score * turn - most * turn);
}

// What a thread works in.
template <typename T>
class PromptTile {
  using E = Operand<T>;
  static constexpr float LOWEST = -std::numeric_limits<float>::infinity();

 public:
  explicit PromptTile(const Shape& shape)
      : shape_(shape), unit_(shape.softcap ? 1 : shape.scale), depth_(padded(shape.dim, PAIR<E>)),
        channels_(padded(shape.value_dim, ROWS_AT_ONCE)), query_(depth_ * LANES),
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
    for (int k = 0; k < count; k += PAIR<E>)
      set_values(values + slots[k] * stride,
                 k + 1 < count ? values + slots[k + 1] * stride : nullptr, &values_[k * channels_]);
  }

  // Attends the tile's first `count` tokens, the first of them at position `first`.
  void attend(int32_t first, int count, int64_t window, bool is_masked) {
    int rows = padded(count, ROWS_AT_ONCE);
    multiply_tile<E>(keys_.data(), depth_, PAIR<E>, query_.data(), depth_ / PAIR<E>, rows, false,
                     scores_.data());
    for (int vec = 0; vec < LANE_VECS; vec++) {
      if (is_masked || shape_.softcap)
        soften<true>(vec * WIDTH, first, count, window);
      else
        soften<false>(vec * WIDTH, first, count, window);
    }
    multiply_tile<E>(values_.data(), PAIR<E>, channels_ * PAIR<E>, weights_.data(),
                     padded(count, PAIR<E>) / PAIR<E>, channels_, true, out_.data());
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
  std::vector<E> query_, keys_, values_, weights_;
  std::vector<float> scores_, out_;
  int32_t positions_[LANES];
  float most_[LANES], total_[LANES];
};

}  // namespace millstream
