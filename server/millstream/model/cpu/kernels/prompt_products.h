// Products of prompt attention by vectors, query rows side by side in the lanes, and what their
// operands are.
#pragma once

#include <algorithm>
#include <cstring>

#include "elementwise.h"
#include "simd.h"

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

}  // namespace millstream
