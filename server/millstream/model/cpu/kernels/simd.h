// Vectors of float, as wide as the processor's registers, in the vector language of GCC and Clang:
// the same source compiles for AVX-512, AVX2, NEON and anything else. Arithmetic is in float;
// bfloat16 is only a way to store it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace millstream {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t IntVec __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t WordVec __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t HalfVec __attribute__((vector_size(2 * WIDTH)));

struct bf16 {
  uint16_t bits;
};

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))  // compiled once, whoever calls it

INLINE Vec splat(float x) { return x - Vec{}; }

INLINE float to_float(float x) { return x; }

INLINE float to_float(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

INLINE Vec load(const float* from) {
  Vec out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

INLINE Vec widened(HalfVec half) {
#if defined(__AVX512F__)  // GCC 12 makes five instructions of the line below
  return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#else
  return (Vec)(__builtin_convertvector(half, WordVec) << 16);
#endif
}

INLINE Vec load(const bf16* from) {
  HalfVec half;
  std::memcpy(&half, from, sizeof half);
  return widened(half);
}

// To the nearest bfloat16, ties to even, as torch rounds.
INLINE HalfVec to_bf16(Vec x) {
#if defined(__AVX512BF16__)
  return (HalfVec)_mm512_cvtneps_pbh((__m512)x);
#else
  WordVec bits = (WordVec)x;
  WordVec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  WordVec is_nan = (WordVec)(x != x);
  return __builtin_convertvector((rounded & ~is_nan) | (0x7fc0 & is_nan), HalfVec);
#endif
}

INLINE void store(float* to, Vec x) { std::memcpy(to, &x, sizeof x); }

INLINE void store(bf16* to, Vec x) {
  HalfVec half = to_bf16(x);
  std::memcpy(to, &half, sizeof half);
}

// x as it is after having been stored as a T.
template <typename T>
INLINE Vec rounded(Vec x);
template <>
INLINE Vec rounded<float>(Vec x) { return x; }
template <>
INLINE Vec rounded<bf16>(Vec x) { return widened(to_bf16(x)); }

// The first `count` elements only; the others are zero, and are not touched.
template <typename T>
INLINE Vec load_part(const T* from, int count) {
  T part[WIDTH] = {};
  std::memcpy(part, from, count * sizeof(T));
  return load(part);
}

template <typename T>
INLINE void store_part(T* to, Vec x, int count) {
  T part[WIDTH];
  store(part, x);
  std::memcpy(to, part, count * sizeof(T));
}

INLINE float sum(Vec x) {
  float total = 0;
  for (int i = 0; i < WIDTH; i++) total += x[i];
  return total;
}

INLINE bool all_equal(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ) == 0xffff;
#else
  for (int i = 0; i < WIDTH; i++)
    if (a[i] != b[i]) return false;
  return true;
#endif
}

INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// e^x within 2 units in the last place (Cephes' expf); 0 below -87.
INLINE Vec exp(Vec x) {
  const float magic = 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
  Vec bounded = x > 88.0f ? splat(88.0f) : x;
  Vec whole = bounded * 1.44269504f + magic;
  IntVec exponent = (IntVec)whole - (IntVec)splat(magic);
  whole -= magic;
  Vec r = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Vec out = p * (Vec)((exponent + 127) << 23);
  return x < -87.0f ? Vec{} : out;
}

// 2^x for x <= 0 within 3e-6 of it; 0 where that is smaller than any float.
INLINE Vec rough_exp2(Vec x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  Vec r = (Vec)_mm512_reduce_ps((__m512)x, 9);  // x less the whole number below it
  Vec p = splat(1.3426693156e-2f);
  p = p * r + 5.2242457867e-2f;
  p = p * r + 2.4128021300e-1f;
  p = p * r + 6.9304484129e-1f;
  p = p * r + 1.0f;
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
  return exp(x * 0.693147181f);
#endif
}

INLINE Vec tanh(Vec x) { return 1.0f - 2.0f / (exp(2.0f * x) + 1.0f); }

// Of two vectors that hold sums of COUNT / 2 rows each, side by side in parts of 2 * WIDTH / COUNT
// elements, one that holds those of all COUNT, in halves of such parts. Elements of a part add up.
template <int COUNT>
INLINE Vec pair_sums(Vec a, Vec b) {
#if defined(__AVX512F__)  // shuffles within, then of whole quarters: rows come out in their order
  auto x = (__m512)a, y = (__m512)b;
  if constexpr (COUNT <= 4)
    return (Vec)_mm512_add_ps(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));
  else
    return (Vec)_mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
#elif defined(__clang__)
  Vec evens, odds;
  for (int i = 0; i < WIDTH / 2; i++) {
    evens[i] = a[2 * i], evens[i + WIDTH / 2] = b[2 * i];
    odds[i] = a[2 * i + 1], odds[i + WIDTH / 2] = b[2 * i + 1];
  }
  return evens + odds;
#else
  IntVec even, odd;
  for (int i = 0; i < WIDTH; i++) even[i] = 2 * i, odd[i] = 2 * i + 1;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
#endif
}

}  // namespace millstream
