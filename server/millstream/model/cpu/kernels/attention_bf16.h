// The inner loops of attention.h for bfloat16 instructions: tiles of 16 tokens, which lie at equal
// distances in a block, and all query heads of a key head at once. Products of bfloat16 pairs are
// exact and added up in float; weights of values are rounded to bfloat16, as prefill.h does and as
// a model's own attention does.
#pragma once

#include "attention.h"

#if defined(__AVX512BF16__)
namespace millstream {

constexpr int TILE_TOKENS = WIDTH;
constexpr int TILES_AHEAD = 4;  // that are asked for before their turn

INLINE Vec multiply_pairs(Vec acc, __m512i a, __m512i b) {
  return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}

// Rows of 16 tokens: all their heads, `stride` elements from one token to the next.
struct Tile {
  const bf16* start;
  int64_t stride;

  INLINE void ask_for(int token, int64_t offset, int64_t size) const {
    fetch(start + token * stride + offset, size);
  }
};

// The tiles of a span's keys or values. Those that end in another block than they begin in are
// copied. Behind the last token lies whatever its block holds.
class Tiles {
 public:
  static constexpr int MOST = SPAN / TILE_TOKENS;

  // width: elements of a token that are looked at; room: for tiles that have to be copied
  Tiles(const bf16* cache, int64_t stride, int64_t width, const int64_t* slots, int count,
        int64_t block_size, std::vector<bf16>& room)
      : count_((count + TILE_TOKENS - 1) / TILE_TOKENS), tokens_(count) {
    int copies = 0;
    for (int i = 0; i < count_; i++) copies += !is_whole(slots[i * TILE_TOKENS], block_size);
    if (copies) room.resize(copies * TILE_TOKENS * stride);
    bf16* free = room.data();
    for (int i = 0; i < count_; i++) {
      int first = i * TILE_TOKENS;
      tiles_[i] = {cache + slots[first] * stride, stride};
      if (is_whole(slots[first], block_size)) continue;
      tiles_[i].start = free;
      for (int k = 0; k < TILE_TOKENS; k++, free += stride)
        std::memcpy(free, cache + slots[std::min(first + k, count - 1)] * stride, width * 2);
    }
  }

  int count() const { return count_; }
  int tokens(int i) const { return std::min(TILE_TOKENS, tokens_ - i * TILE_TOKENS); }
  const Tile& operator[](int i) const { return tiles_[i]; }

 private:
  static bool is_whole(int64_t slot, int64_t block_size) {
    return slot % block_size + TILE_TOKENS <= block_size;
  }

  Tile tiles_[MOST];
  int count_, tokens_;
};

// scores[h * SPAN + i] = query head h . key of token i, for HEADS heads of one key head. DIM: dim
// where it is known, or 0; a multiple of 32. later: what is needed later, at the same offset.
template <int DIM, int HEADS>
INLINE void score_tile(const bf16* query, int64_t dim, const Tile& tile, const Tile& later,
                       int64_t offset, float* scores) {
  if (DIM) dim = DIM;
  Vec sums[HEADS][4];
#pragma GCC unroll 4
  for (int quad = 0; quad < 4; quad++) {
    const bf16* key = tile.start + 4 * quad * tile.stride + offset;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) later.ask_for(4 * quad + k, offset, dim);
#pragma GCC unroll 4
    for (int h = 0; h < HEADS; h++) {
      Vec acc[4] = {};
#pragma GCC unroll 4
      for (int i = 0; i < dim; i += 32) {
        __m512i part = _mm512_loadu_si512(query + h * dim + i);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
          acc[k] = multiply_pairs(acc[k], part, _mm512_loadu_si512(key + k * tile.stride + i));
      }
      sums[h][quad] = pair_sums<4>(pair_sums<2>(acc[0], acc[1]), pair_sums<2>(acc[2], acc[3]));
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; h++)
    store(scores + h * SPAN, pair_sums<16>(pair_sums<8>(sums[h][0], sums[h][1]),
                                           pair_sums<8>(sums[h][2], sums[h][3])));
}

// f(head, integral constant n): n heads from `head` on, all of one key head.
template <typename F>
INLINE void each_few_heads(const Shape& shape, F&& f) {
  for (int64_t head = 0; head < shape.heads;) {
    int64_t left = shape.group() - head % shape.group();
    switch (left) {
      case 1: f(head, std::integral_constant<int, 1>()); break;
      case 2: f(head, std::integral_constant<int, 2>()); break;
      case 3: f(head, std::integral_constant<int, 3>()); break;
      default: f(head, std::integral_constant<int, 4>());
    }
    head += std::min<int64_t>(left, 4);
  }
}

template <int DIM>
void score_tiles(const Shape& shape, const bf16* query, const Tiles& keys, const Tiles& values,
                 float* scores) {
  for (int i = 0; i < keys.count(); i++) {
    int after = i + TILES_AHEAD;
    const Tile& later =
        after < keys.count() ? keys[after] : values[std::min(after, 2 * keys.count() - 1) -
                                                    keys.count()];
    each_few_heads(shape, [&](int64_t head, auto heads) {
      score_tile<DIM, heads>(query + head * shape.dim, shape.dim, keys[i], later,
                             head / shape.group() * shape.dim,
                             scores + head * SPAN + i * TILE_TOKENS);
    });
  }
}

// out[h] += sum over the tokens of `count` tiles of weights[h][token] * value, for HALVES times 32
// values from `offset` on.
template <int HEADS, int HALVES>
INLINE void weigh_tiles(const bf16* weights, const Tiles& tiles, int first, int count,
                        int64_t offset, float* out, int64_t dim) {
  Vec acc[HEADS][2 * HALVES] = {};
  for (int i = first; i < first + count; i++) {
    const Tile &tile = tiles[i], &later = tiles[std::min(i + TILES_AHEAD, tiles.count() - 1)];
    for (int k = 0, tokens = tiles.tokens(i); k < tokens; k += 2) {
      const bf16* value = tile.start + k * tile.stride + offset;
      const bf16* next = k + 1 < tokens ? value + tile.stride : value;  // or with weight 0
      later.ask_for(k, offset, 32 * HALVES);
      later.ask_for(k + 1, offset, 32 * HALVES);
      __m512i pairs[2 * HALVES];
#pragma GCC unroll 2
      for (int half = 0; half < HALVES; half++) {
        __m512i one = _mm512_loadu_si512(value + 32 * half);
        __m512i two = _mm512_loadu_si512(next + 32 * half);
        pairs[2 * half] = _mm512_unpacklo_epi16(one, two);
        pairs[2 * half + 1] = _mm512_unpackhi_epi16(one, two);
      }
#pragma GCC unroll 4
      for (int h = 0; h < HEADS; h++) {
        int32_t pair;
        std::memcpy(&pair, weights + h * 2 * SPAN + i * TILE_TOKENS + k, sizeof pair);
        __m512i both = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int part = 0; part < 2 * HALVES; part++)
          acc[h][part] = multiply_pairs(acc[h][part], pairs[part], both);
      }
    }
  }
  // Unpacking took four values of eight at a time.
  const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; h++)
#pragma GCC unroll 2
    for (int half = 0; half < HALVES; half++) {
      auto low = (__m512)acc[h][2 * half], high = (__m512)acc[h][2 * half + 1];
      float* to = out + h * dim + 32 * half;
      store(to, load(to) + (Vec)_mm512_permutex2var_ps(low, front, high));
      store(to + WIDTH, load(to + WIDTH) + (Vec)_mm512_permutex2var_ps(low, back, high));
    }
}

// out[head] = sum over tokens of weights[head][token] * value
inline void weigh_tiles(const Shape& shape, const bf16* weights, const Tiles& tiles, float* out) {
  int64_t dim = shape.value_dim;
  std::fill(out, out + shape.heads * dim, 0.0f);
  for (int first = 0; first < tiles.count(); first += TILES_AHEAD) {
    int count = std::min(TILES_AHEAD, tiles.count() - first);
    each_few_heads(shape, [&](int64_t head, auto heads) {
      const bf16* by = weights + head * 2 * SPAN;
      int64_t offset = head / shape.group() * dim, i = 0;
      for (; i + 64 <= dim; i += 64)
        weigh_tiles<heads, 2>(by, tiles, first, count, offset + i, out + head * dim + i, dim);
      if (i < dim)
        weigh_tiles<heads, 1>(by, tiles, first, count, offset + i, out + head * dim + i, dim);
    });
  }
}

inline bool can_tile(const Shape& shape) { return shape.dim % 32 == 0 && shape.value_dim % 32 == 0; }

// What attend_span in attention.h does. Only for shapes that can_tile().
inline void attend_span_tiled(const Shape& shape, const bf16* query, const Tokens<bf16>& tokens,
                              float* scores, Partial out) {
  thread_local std::vector<bf16> room[2];
  Tiles keys(tokens.keys, tokens.key_stride, shape.kv_heads * shape.dim, tokens.slots, tokens.count,
             shape.block_size, room[0]);
  Tiles values(tokens.values, tokens.value_stride, shape.kv_heads * shape.value_dim, tokens.slots,
               tokens.count, shape.block_size, room[1]);
  switch (shape.dim) {
    case 64: score_tiles<64>(shape, query, keys, values, scores); break;
    case 128: score_tiles<128>(shape, query, keys, values, scores); break;
    default: score_tiles<0>(shape, query, keys, values, scores);
  }
  auto weights = reinterpret_cast<bf16*>(scores);  // of each head in place of its scores
  for (int64_t h = 0; h < shape.heads; h++) {
    soften(scores + h * SPAN, tokens.count, shape, out.max + h, out.weight + h);
    for (int i = 0; i < keys.count() * TILE_TOKENS; i += WIDTH)
      store(weights + h * 2 * SPAN + i, load(scores + h * SPAN + i));
  }
  weigh_tiles(shape, weights, values, out.values);
}

}  // namespace millstream
#endif
