// Attention of one new token per sequence over a paged cache, read in place.
//
// The positions a token sees are cut into spans, counted from the first one it sees. A span, or some
// heads of one, is a unit of work: scores, their exact maximum, weights, weighted values. The spans
// of a row are then merged in order (Flash-Decoding). So a row's result depends on that row only,
// not on its neighbours and not on the number of threads.
//
// Decoding is bound by memory: a span is walked in the order in which it lies there, all key heads
// of a few tokens at a time, and the tokens after those are asked for in the meantime.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "simd.h"

namespace millstream {

constexpr int SPAN = 256;  // tokens
constexpr int TILE = 64;   // tokens whose values are weighed together
constexpr int AHEAD = 64;  // tokens that are asked for before their turn
constexpr int HEADS_AT_ONCE = 4;
constexpr int VECS_AT_ONCE = WIDTH == 16 ? 4 : 2;

struct Shape {
  int64_t heads, kv_heads, dim, value_dim, block_size;
  float scale, softcap;  // softcap 0: none

  int64_t group() const { return heads / kv_heads; }
};

// What a span gives each query head: largest score, sum of weights, weighted values.
struct Partial {
  float *max, *weight, *values;  // [heads], [heads], [heads, value_dim]
};

// Where the tokens of a span lie in the two caches, and what comes after in memory order.
template <typename T>
struct Tokens {
  const T *keys, *values;
  int64_t key_stride, value_stride;
  const int64_t* slots;
  int count;

  const T* key(int i) const { return keys + slots[std::min(i, count - 1)] * key_stride; }
  const T* value(int i) const { return values + slots[std::min(i, count - 1)] * value_stride; }
};

template <typename T>
INLINE void fetch(const T* row, int64_t size) {
  auto bytes = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < size * int64_t(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
}

#if defined(__AVX512BF16__)
// Products of bfloat16 pairs are exact and added up in float.
constexpr int BF16_STEP = 32;
INLINE Vec multiply_add(Vec acc, const bf16* a, const bf16* b) {
  return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(a),
                               (__m512bh)_mm512_loadu_si512(b));
}
#else
constexpr int BF16_STEP = WIDTH;
INLINE Vec multiply_add(Vec acc, const bf16* a, const bf16* b) { return acc + load(a) * load(b); }
#endif
INLINE Vec multiply_add(Vec acc, const float* a, const float* b) { return acc + load(a) * load(b); }

// Vectors whose elements add up to query . key. DIM: dim where it is known, or 0.
template <typename T, int DIM>
INLINE Vec multiply(const T* query, const T* key, int dim) {
  constexpr int step = sizeof(T) == 2 ? BF16_STEP : WIDTH;
  Vec acc = {};
#pragma GCC unroll 4
  for (int i = 0; i + step <= (DIM ? DIM : dim); i += step)
    acc = multiply_add(acc, query + i, key + i);
  if constexpr (DIM == 0)
    for (int i = dim / step * step; i < dim; i += WIDTH) {
      int count = std::min(WIDTH, dim - i);
      acc += load_part(query + i, count) * load_part(key + i, count);
    }
  return acc;
}

// query . key for COUNT keys at rows[i] + offset, as sums of WIDTH / COUNT parts (see pair_sums).
template <typename T, int DIM, int COUNT = WIDTH>
INLINE Vec dot_products(const T* query, const T* const* rows, int64_t offset, int dim) {
  if constexpr (COUNT == 1)
    return multiply<T, DIM>(query, *rows + offset, dim);
  else
    return pair_sums<COUNT>(
        dot_products<T, DIM, COUNT / 2>(query, rows, offset, dim),
        dot_products<T, DIM, COUNT / 2>(query, rows + COUNT / 2, offset, dim));
}

// scores[head][i] = query[head] . key of token i
template <typename T, int DIM>
void score_tokens(const Shape& shape, const T* query, const Tokens<T>& tokens, float* scores) {
  int group = shape.group(), dim = shape.dim;
  for (int i = 0; i < tokens.count; i += WIDTH) {
    const T *rows[WIDTH], *later[WIDTH];
    for (int k = 0; k < WIDTH; k++) {
      rows[k] = tokens.key(i + k);
      later[k] = i + AHEAD < tokens.count ? tokens.key(i + k + AHEAD)
                                          : tokens.value(i + k + AHEAD - tokens.count);
    }
    for (int h = 0; h < shape.heads; h++) {
      int64_t offset = h / group * dim;
      for (int k = h % group; k < WIDTH; k += group) fetch(later[k] + offset, dim);
      store(scores + h * SPAN + i,
            dot_products<T, DIM>(query + h * dim, rows, offset, dim));
    }
  }
}

// out[h] += sum over tokens of weights[h][token] * value, for VECS vectors of values.
// rows: of those tokens, then of as many later ones.
template <typename T, int HEADS, int VECS>
INLINE void add_weighted(const float* weights, const T* const* rows, int64_t offset, int count,
                         float* out, int64_t stride) {
  Vec acc[HEADS][VECS];
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; h++)
#pragma GCC unroll 4
    for (int c = 0; c < VECS; c++) acc[h][c] = load(out + h * stride + c * WIDTH);
  for (int k = 0; k < count; k++) {
    const T* row = rows[k] + offset;
    fetch(rows[k + AHEAD] + offset, VECS * WIDTH);
    Vec value[VECS];
#pragma GCC unroll 4
    for (int c = 0; c < VECS; c++) value[c] = load(row + c * WIDTH);
#pragma GCC unroll 4
    for (int h = 0; h < HEADS; h++) {
      Vec weight = splat(weights[h * SPAN + k]);
#pragma GCC unroll 4
      for (int c = 0; c < VECS; c++) acc[h][c] += weight * value[c];
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; h++)
#pragma GCC unroll 4
    for (int c = 0; c < VECS; c++) store(out + h * stride + c * WIDTH, acc[h][c]);
}

// The same for all `dim` values of HEADS query heads of one key head.
template <typename T, int HEADS>
void weigh_head(const float* weights, const T* const* rows, int64_t offset, int count, float* out,
                int dim) {
  int i = 0;
  for (; i + VECS_AT_ONCE * WIDTH <= dim; i += VECS_AT_ONCE * WIDTH)
    add_weighted<T, HEADS, VECS_AT_ONCE>(weights, rows, offset + i, count, out + i, dim);
  for (; i + WIDTH <= dim; i += WIDTH)
    add_weighted<T, HEADS, 1>(weights, rows, offset + i, count, out + i, dim);
  for (; i < dim; i++)
    for (int h = 0; h < HEADS; h++)
      for (int k = 0; k < count; k++)
        out[h * dim + i] += weights[h * SPAN + k] * to_float(rows[k][offset + i]);
}

// out[head] = sum over tokens of weights[head][token] * value
template <typename T>
void weigh_tokens(const Shape& shape, const float* weights, const Tokens<T>& tokens, float* out) {
  int64_t group = shape.group(), dim = shape.value_dim;
  std::fill(out, out + shape.heads * dim, 0.0f);
  for (int i = 0; i < tokens.count; i += TILE) {
    int count = std::min(TILE, tokens.count - i);
    const T* rows[TILE + AHEAD];
    for (int k = 0; k < count + AHEAD; k++) rows[k] = tokens.value(i + k);
    for (int64_t head = 0; head < shape.heads;) {
      int64_t kv_head = head / group, left = (kv_head + 1) * group - head;
      const float* by = weights + head * SPAN + i;
      float* to = out + head * dim;
      switch (left) {
        case 1: weigh_head<T, 1>(by, rows, kv_head * dim, count, to, dim); break;
        case 2: weigh_head<T, 2>(by, rows, kv_head * dim, count, to, dim); break;
        case 3: weigh_head<T, 3>(by, rows, kv_head * dim, count, to, dim); break;
        default: weigh_head<T, 4>(by, rows, kv_head * dim, count, to, dim);
      }
      head += std::min<int64_t>(left, HEADS_AT_ONCE);
    }
  }
}

// Scores of `count` keys become softmax weights before division; what they were divided by is
// left in `max` and `weight`.
inline void soften(float* scores, int count, const Shape& shape, float* max, float* weight) {
  const float lowest = -std::numeric_limits<float>::infinity();
  Vec most = splat(lowest);
  for (int k = 0; k < count; k += WIDTH) {
    Vec score = load(scores + k) * shape.scale;
    if (shape.softcap) score = shape.softcap * tanh(score / shape.softcap);
    if (count - k < WIDTH)
      for (int i = count - k; i < WIDTH; i++) score[i] = lowest;
    store(scores + k, score);
    most = larger(score, most);
  }
  *max = lowest;
  for (int i = 0; i < WIDTH; i++) *max = std::max(*max, most[i]);
  Vec total = {};
  for (int k = 0; k < count; k += WIDTH) {
    Vec part = exp(load(scores + k) - *max);
    store(scores + k, part);
    total += part;
  }
  *weight = sum(total);
}

// One span of one row. query [heads, dim]; scores: room for [heads, SPAN].
template <typename T>
void attend_span(const Shape& shape, const T* query, const Tokens<T>& tokens, float* scores,
                 Partial out) {
  switch (shape.dim) {
    case 64: score_tokens<T, 64>(shape, query, tokens, scores); break;
    case 128: score_tokens<T, 128>(shape, query, tokens, scores); break;
    default: score_tokens<T, 0>(shape, query, tokens, scores);
  }
  for (int h = 0; h < shape.heads; h++)
    soften(scores + h * SPAN, tokens.count, shape, out.max + h, out.weight + h);
  weigh_tokens(shape, scores, tokens, out.values);
}

// The spans of one query head, in order, as its row of the result. sink: a score without a value.
template <typename T>
void merge_spans(const Partial* spans, int count, int head, const float* sink, int dim, T* out) {
  float most = sink ? *sink : -std::numeric_limits<float>::infinity();
  for (int s = 0; s < count; s++) most = std::max(most, spans[s].max[head]);
  float total = sink ? std::exp(*sink - most) : 0.0f;
  for (int s = 0; s < count; s++) {
    spans[s].max[head] = std::exp(spans[s].max[head] - most);
    total += spans[s].weight[head] * spans[s].max[head];
  }
  for (int i = 0; i < dim; i += WIDTH) {
    int part = std::min(WIDTH, dim - i);
    Vec acc = {};
    for (int s = 0; s < count; s++)
      acc += load_part(spans[s].values + head * dim + i, part) * spans[s].max[head];
    store_part(out + i, acc / total, part);
  }
}

}  // namespace millstream
