// Products of bytes, added up by the instructions that a processor has for it.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

#if defined(__AVXVNNI__) && !defined(__AVX512F__)
#define MILLSTREAM_HAS_AVX_VNNI 1
#else
#define MILLSTREAM_HAS_AVX_VNNI 0
#endif

namespace millstream {

typedef uint8_t ByteVec __attribute__((vector_size(4 * WIDTH)));

// WIDTH whole numbers of one or of two bytes. GCC takes a vector's conversion apart, number by number.
template <typename T>
INLINE IntVec load_whole(const void* from) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 1)
    return (IntVec)_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  else
    return (IntVec)_mm512_cvtepi16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 1)
    return (IntVec)_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
  else
    return (IntVec)_mm256_cvtepi16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
#else
  typedef T Small __attribute__((vector_size(sizeof(T) * WIDTH)));
  Small small;
  std::memcpy(&small, from, sizeof small);
  return __builtin_convertvector(small, IntVec);
#endif
}

// small: numbers from 0 to 15; four: of a row, as signed bytes. Sums of a section of 32 such numbers
// are 32 bits where an instruction adds up four products, and two halves of 16 bits each where one
// adds up two; add_scaled() multiplies them by a number of 16 bits, add_scaled_words() whole sums of
// at most 16 bits.
#if defined(__AVX512VNNI__)
constexpr bool HAS_HALVES = false;
INLINE IntVec add_small(IntVec acc, ByteVec small, int32_t four) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)small, _mm512_set1_epi32(four));
}
INLINE IntVec add_scaled_words(IntVec acc, IntVec sums, IntVec by) {
  return (IntVec)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)sums, (__m512i)(by & 0xffff));
}
#elif defined(__AVX512BW__)
constexpr bool HAS_HALVES = true;
INLINE IntVec add_small(IntVec acc, ByteVec small, int32_t four) {
  __m512i pairs = _mm512_maddubs_epi16((__m512i)small, _mm512_set1_epi32(four));
  return (IntVec)_mm512_add_epi16((__m512i)acc, pairs);
}
INLINE IntVec add_pairs(IntVec acc, IntVec sums, IntVec by) {
  return acc + (IntVec)_mm512_madd_epi16((__m512i)sums, (__m512i)by);
}
#elif MILLSTREAM_HAS_AVX_VNNI
constexpr bool HAS_HALVES = false;
INLINE IntVec add_small(IntVec acc, ByteVec small, int32_t four) {
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)small, _mm256_set1_epi32(four));
}
INLINE IntVec add_scaled_words(IntVec acc, IntVec sums, IntVec by) {
  return (IntVec)_mm256_dpwssd_avx_epi32((__m256i)acc, (__m256i)sums, (__m256i)(by & 0xffff));
}
#elif defined(__AVX2__)
constexpr bool HAS_HALVES = true;
INLINE IntVec add_small(IntVec acc, ByteVec small, int32_t four) {
  __m256i pairs = _mm256_maddubs_epi16((__m256i)small, _mm256_set1_epi32(four));
  return (IntVec)_mm256_add_epi16((__m256i)acc, pairs);
}
INLINE IntVec add_pairs(IntVec acc, IntVec sums, IntVec by) {
  return acc + (IntVec)_mm256_madd_epi16((__m256i)sums, (__m256i)by);
}
#else
constexpr bool HAS_HALVES = false;
INLINE IntVec add_small(IntVec acc, ByteVec small, int32_t four) {
  int8_t row[4];
  std::memcpy(row, &four, sizeof row);
  for (int i = 0; i < WIDTH; i++)
    for (int k = 0; k < 4; k++) acc[i] += int32_t(small[4 * i + k]) * row[k];
  return acc;
}
INLINE IntVec add_scaled_words(IntVec acc, IntVec sums, IntVec by) { return acc + sums * by; }
#endif

#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !MILLSTREAM_HAS_AVX_VNNI
INLINE IntVec add_scaled_words(IntVec acc, IntVec sums, IntVec by) {
  return add_pairs(acc, sums, by & 0xffff);
}
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {
  return add_pairs(acc, sums, (by & 0xffff) | (by << 16));
}
#else
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {
  return add_scaled_words(acc, sums, by);
}
#endif

#if defined(__AVX512BW__) || defined(__AVX2__)
constexpr bool HAS_BYTE_PRODUCTS = true;
#else
constexpr bool HAS_BYTE_PRODUCTS = false;
#endif

// Signed bytes, prepared to be multiplied by many rows. Where BYTES_ARE_SHIFTED, 128 is added to them
// for an instruction that wants one side unsigned; elsewhere signs move to the row, since two
// products of large unsigned bytes would not fit into 16 bits.
#if defined(__AVX512VNNI__) || MILLSTREAM_HAS_AVX_VNNI
constexpr bool BYTES_ARE_SHIFTED = true;
class SignedBytes {
 public:
  explicit INLINE SignedBytes(ByteVec bytes) : bytes_(bytes ^ 128) {}
  INLINE IntVec add_to(IntVec acc, int32_t four) const { return add_small(acc, bytes_, four); }

 private:
  ByteVec bytes_;
};
#elif defined(__AVX512BW__)
constexpr bool BYTES_ARE_SHIFTED = false;
class SignedBytes {
 public:
  explicit INLINE SignedBytes(ByteVec bytes)
      : sizes_(_mm512_abs_epi8((__m512i)bytes)), negative_(_mm512_movepi8_mask((__m512i)bytes)) {}
  INLINE IntVec add_to(IntVec acc, int32_t four) const {
    __m512i row = _mm512_set1_epi32(four);
    row = _mm512_mask_sub_epi8(row, negative_, _mm512_setzero_si512(), row);
    __m512i pairs = _mm512_maddubs_epi16(sizes_, row);
    return acc + (IntVec)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  }

 private:
  __m512i sizes_;
  __mmask64 negative_;
};
#elif defined(__AVX2__)
constexpr bool BYTES_ARE_SHIFTED = false;
class SignedBytes {
 public:
  explicit INLINE SignedBytes(ByteVec bytes)
      : bytes_((__m256i)bytes), sizes_(_mm256_abs_epi8((__m256i)bytes)) {}
  INLINE IntVec add_to(IntVec acc, int32_t four) const {
    __m256i row = _mm256_sign_epi8(_mm256_set1_epi32(four), bytes_);
    __m256i pairs = _mm256_maddubs_epi16(sizes_, row);
    return acc + (IntVec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }

 private:
  __m256i bytes_, sizes_;
};
#else
constexpr bool BYTES_ARE_SHIFTED = false;
class SignedBytes {
 public:
  explicit INLINE SignedBytes(ByteVec bytes) : bytes_(bytes) {}
  INLINE IntVec add_to(IntVec acc, int32_t four) const {
    int8_t row[4];
    std::memcpy(row, &four, sizeof row);
    for (int i = 0; i < WIDTH; i++)
      for (int k = 0; k < 4; k++) acc[i] += int32_t(int8_t(bytes_[4 * i + k])) * row[k];
    return acc;
  }

 private:
  ByteVec bytes_;
};
#endif

// bytes: of weights; four: of a row, plus 128 where BYTES_ARE_SHIFTED.
INLINE IntVec add_signed(IntVec acc, int32_t four, ByteVec bytes) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(four), (__m512i)bytes);
#elif MILLSTREAM_HAS_AVX_VNNI
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)acc, _mm256_set1_epi32(four), (__m256i)bytes);
#else
  return SignedBytes(bytes).add_to(acc, four);
#endif
}

}  // namespace millstream
