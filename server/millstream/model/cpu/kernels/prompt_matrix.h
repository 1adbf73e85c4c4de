// Products of prompt attention by matrix units (AMX), where the processor has them.
//
// As with vectors, products of bfloat16 pairs are added up in float, pair after pair, in the order of
// the depth; so a result depends on its own row and column only.
#pragma once

#include <new>
#include <vector>

#include "attention.h"
#include "tiles.h"

#if MILLSTREAM_HAS_TILES && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define MILLSTREAM_HAS_MATRIX_PROMPTS 1
#endif

namespace millstream {

constexpr std::align_val_t LINE_ALIGNMENT{64};

// Memory for std::vector that begins with a cache line, as rows of tiles should.
template <typename E>
struct LineAllocator {
  using value_type = E;
  LineAllocator() = default;
  template <typename Other>
  LineAllocator(const LineAllocator<Other>&) {}
  E* allocate(size_t count) {
    return static_cast<E*>(::operator new(count * sizeof(E), LINE_ALIGNMENT));
  }
  void deallocate(E* memory, size_t) { ::operator delete(memory, LINE_ALIGNMENT); }
  bool operator==(const LineAllocator&) const { return true; }
};
template <typename E>
using Lines = std::vector<E, LineAllocator<E>>;

constexpr int MATRIX_DEPTH = 32;  // of a tile of bfloat16

#if MILLSTREAM_HAS_MATRIX_PROMPTS

// Whether matrix units multiply queries and keys, weights and values of these sizes.
inline bool can_use_matrix(const Shape& shape, const bf16*) {
  return shape.dim % MATRIX_DEPTH == 0 && shape.value_dim % TILE_ROWS == 0 && may_use_tiles();
}

// c[row][lane] = (add ? c : 0) + sum over k of a[row][k] * b[k][lane], for `rows` rows of `stride`
// elements, a multiple of 16. depth: a multiple of 32; b [depth / 2, lanes, 2]; c [rows, lanes].
template <int LANES>
void multiply_matrices(const bf16* a, int64_t stride, const bf16* b, int depth, int rows, bool add,
                       float* c) {
  constexpr int ROW_BYTES = LANES * sizeof(float);  // of c; of b too, where they are pairs
  asm volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
  for (int row = 0; row < rows; row += 2 * TILE_ROWS) {
    bool has_two = row + TILE_ROWS < rows;
    for (int lane = 0; lane < LANES; lane += 32) {
      float* upper = c + row * LANES + lane;
      float* lower = upper + (has_two ? TILE_ROWS * LANES : 0);
      if (add) {
        _tile_loadd(0, upper, ROW_BYTES);
        _tile_loadd(1, upper + 16, ROW_BYTES);
        _tile_loadd(2, lower, ROW_BYTES);
        _tile_loadd(3, lower + 16, ROW_BYTES);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int k = 0; k < depth; k += MATRIX_DEPTH) {
        const bf16* left = a + row * stride + k;
        const bf16* right = b + k * LANES + lane * 2;
        _tile_loadd(6, right, ROW_BYTES);
        _tile_loadd(7, right + 32, ROW_BYTES);
        _tile_loadd(4, left, stride * sizeof(bf16));
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (has_two) {
          _tile_loadd(5, left + TILE_ROWS * stride, stride * sizeof(bf16));
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, upper, ROW_BYTES);
      _tile_stored(1, upper + 16, ROW_BYTES);
      if (has_two) {
        _tile_stored(2, lower, ROW_BYTES);
        _tile_stored(3, lower + 16, ROW_BYTES);
      }
    }
  }
  asm volatile("" ::: "memory");
}

// Turns 16 rows of 16 numbers into columns: what differs in a bit of row and lane changes places.
INLINE void transpose(__m512i* rows) {
  IntVec lane;
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) lane[i] = i;
#pragma GCC unroll 4
  for (int bit = 1; bit < 16; bit *= 2) {
    auto low = (__m512i)((lane & bit) != 0 ? lane + 16 - bit : lane);
    auto high = (__m512i)((lane & bit) != 0 ? lane + 16 : lane + bit);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i & bit) continue;
      __m512i one = rows[i], two = rows[i + bit];
      rows[i] = _mm512_permutex2var_epi32(one, low, two);
      rows[i + bit] = _mm512_permutex2var_epi32(one, high, two);
    }
  }
}

// to[channel][token] = value, `room` tokens for each channel; zeros after the last of `count` tokens,
// up to a multiple of 32. slots: where each token's values lie, `stride` elements apart.
inline void values_by_channel(const bf16* values, int64_t stride, const int64_t* slots, int count,
                              int64_t channels, int64_t room, bf16* to) {
  auto half = [&](int token, int64_t channel) {
    if (token >= count) return _mm512_setzero_si512();
    auto from = reinterpret_cast<const __m256i*>(values + slots[token] * stride + channel);
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(from));
  };
  for (int first = 0; first < count; first += MATRIX_DEPTH)
    for (int64_t channel = 0; channel < channels; channel += 16) {
      __m512i rows[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        int token = first + 2 * i;
        rows[i] = _mm512_or_si512(half(token, channel),
                                  _mm512_slli_epi32(half(token + 1, channel), 16));
      }
      transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        _mm512_storeu_si512(to + (channel + i) * room + first, rows[i]);
    }
}

#endif

// Without matrix units, and for other dtypes.
template <typename E>
bool can_use_matrix(const Shape&, const E*) {
  return false;
}

}  // namespace millstream
