// What products multiply: rows and weights of which dtypes, and the instruction that does it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "byte_products.h"
#include "simd.h"

namespace millstream {

// Matrix units, where there are some, are what torch's own library is written for.
#if defined(__AMX_BF16__) || defined(__AMX_INT8__)
constexpr bool HAS_MATRIX_UNITS = true;
#else
constexpr bool HAS_MATRIX_UNITS = false;
#endif

// Without an instruction for it. one: STEP inputs; each: as many of every channel.
template <typename P>
INLINE typename P::Sum multiply_plainly(typename P::Sum acc, const typename P::Row* one,
                                        const typename P::Weight* each) {
  auto wide = [](auto x) {
    if constexpr (std::is_same_v<decltype(x), bf16>)
      return to_float(x);
    else
      return int32_t(x);
  };
  for (int i = 0; i < WIDTH; i++)
    for (int k = 0; k < P::STEP; k++) acc[i] += wide(one[k]) * wide(each[i * P::STEP + k]);
  return acc;
}

// What is multiplied: rows of Row and weights, added up as Sum; STEP inputs at a time. Rows of whole
// numbers go up to most(inputs), and SHIFT is added to them.
struct Bfloat16Format {
  using Row = bf16;
  using Weight = bf16;
  using Sum = Vec;
  using Scalar = float;
  static constexpr int STEP = 2;
#if defined(__AVX512BF16__)
  static constexpr bool IS_FAST = !HAS_MATRIX_UNITS;
  static INLINE Sum multiply_add(Sum acc, const bf16* one, const bf16* each) {
    int32_t pair;
    std::memcpy(&pair, one, sizeof pair);
    return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(pair),
                                 (__m512bh)_mm512_loadu_si512(each));
  }
#else
  static constexpr bool IS_FAST = false;
  static INLINE Sum multiply_add(Sum acc, const bf16* one, const bf16* each) {
    return multiply_plainly<Bfloat16Format>(acc, one, each);
  }
#endif
};

// Rows and weights of bytes. Rows are unsigned where an instruction wants that on one side.
struct Int8Format {
  using Row = std::conditional_t<BYTES_ARE_SHIFTED, uint8_t, int8_t>;
  using Weight = int8_t;
  using Sum = IntVec;
  using Scalar = int32_t;
  static constexpr int STEP = 4, SHIFT = BYTES_ARE_SHIFTED ? 128 : 0;
  static constexpr bool IS_FAST = HAS_BYTE_PRODUCTS;
  static constexpr int most(int64_t) { return 127; }
  static INLINE Sum multiply_add(Sum acc, const Row* one, const int8_t* each) {
    int32_t four;
    ByteVec bytes;
    std::memcpy(&four, one, sizeof four);
    std::memcpy(&bytes, each, sizeof bytes);
    return add_signed(acc, four, bytes);
  }
};

// Weights of bytes, and rows of twelve bits in words of sixteen, or of fewer bits where the sums
// would be too large: the same weights, but rows lose next to nothing.
struct Int12Format {
  using Row = int16_t;
  using Weight = int8_t;
  using Sum = IntVec;
  using Scalar = int32_t;
  static constexpr int STEP = 2, SHIFT = 0;
#if (defined(__AVX512VNNI__) && defined(__AVX512BW__)) || \
    (defined(__AVX2__) && !defined(__AVX512F__))
  static constexpr bool IS_FAST = true;
#else
  static constexpr bool IS_FAST = false;
#endif
  static constexpr int most(int64_t inputs) {
    return std::min<int64_t>(2047, INT32_MAX / (127 * inputs));
  }
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  static INLINE Sum multiply_add(Sum acc, const int16_t* one, const int8_t* each) {
    int32_t pair;
    std::memcpy(&pair, one, sizeof pair);
    __m512i words = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)each));
    return (IntVec)_mm512_dpwssd_epi32((__m512i)acc, words, _mm512_set1_epi32(pair));
  }
#elif defined(__AVX2__) && !defined(__AVX512F__)
  static INLINE Sum multiply_add(Sum acc, const int16_t* one, const int8_t* each) {
    int32_t pair;
    std::memcpy(&pair, one, sizeof pair);
    __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)each));
    return acc + (IntVec)_mm256_madd_epi16(words, _mm256_set1_epi32(pair));
  }
#else
  static INLINE Sum multiply_add(Sum acc, const int16_t* one, const int8_t* each) {
    return multiply_plainly<Int12Format>(acc, one, each);
  }
#endif
};

}  // namespace millstream
