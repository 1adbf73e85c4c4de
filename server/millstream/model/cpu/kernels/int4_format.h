// Weights of four bits, multiplied as they lie: a vector of them is taken apart in registers.
//
// A group is 32 inputs of a channel. Its weights are whole numbers from -8 to 7, times a whole number
// of eight bits that the group shares, times a scale that the channel has. Rows are bytes, so
// everything but the last scale is a sum of whole numbers: exact in any order, whoever adds it up.
// What a group adds up to, before its multiplier, fits into 16 bits.
#pragma once

#include "products.h"

namespace millstream {

constexpr int GROUP = 32;  // inputs

// A block's step is one group of its channels. For each 16 channels come four lines, whose bytes
// hold four inputs of a channel in their low halves and the next four in their high ones; numbers
// are stored plus 8. Then come the multipliers of the channels.
struct Int4Format {
  using Row = int8_t;
  using Weight = uint8_t;
  using Sum = IntVec;
  using Scalar = int32_t;
  static constexpr int STEP = GROUP, SHIFT = 0;
  static constexpr int most(int64_t) { return 127; }
#if defined(__AVX512BW__) || defined(__AVX2__)
  static constexpr bool IS_FAST = true;
#else
  static constexpr bool IS_FAST = false;
#endif
};

constexpr int CHANNELS_TOGETHER = 16;                              // channels whose weights lie together
constexpr int NUMBER_BYTES = CHANNELS * GROUP / 2;     // of a step
template <>
constexpr int STEP_BYTES<Int4Format> = NUMBER_BYTES + CHANNELS;

typedef uint8_t ByteVec __attribute__((vector_size(4 * WIDTH)));
typedef int8_t SmallVec __attribute__((vector_size(WIDTH)));

// Sums of a group, for WIDTH channels. Bytes times bytes add up to 32 bits where an instruction does
// that, and to two halves of 16 bits each where one multiplies bytes in pairs.
#if defined(__AVX512VNNI__)
constexpr bool HAS_HALVES = false;
INLINE IntVec add_products(IntVec acc, ByteVec weights, int32_t four) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, _mm512_set1_epi32(four));
}
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {  // by: high halves are zero
  return (IntVec)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)sums, (__m512i)by);
}
#elif defined(__AVX512BW__)
constexpr bool HAS_HALVES = true;
INLINE IntVec add_products(IntVec acc, ByteVec weights, int32_t four) {
  __m512i pairs = _mm512_maddubs_epi16((__m512i)weights, _mm512_set1_epi32(four));
  return (IntVec)_mm512_add_epi16((__m512i)acc, pairs);
}
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {
  return acc + (IntVec)_mm512_madd_epi16((__m512i)sums, (__m512i)by);
}
#elif defined(__AVX2__)
constexpr bool HAS_HALVES = true;
INLINE IntVec add_products(IntVec acc, ByteVec weights, int32_t four) {
  __m256i pairs = _mm256_maddubs_epi16((__m256i)weights, _mm256_set1_epi32(four));
  return (IntVec)_mm256_add_epi16((__m256i)acc, pairs);
}
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {
  return acc + (IntVec)_mm256_madd_epi16((__m256i)sums, (__m256i)by);
}
#else
constexpr bool HAS_HALVES = false;
INLINE IntVec add_products(IntVec acc, ByteVec weights, int32_t four) {
  int8_t row[4];
  std::memcpy(row, &four, sizeof row);
  for (int i = 0; i < WIDTH; i++)
    for (int k = 0; k < 4; k++) acc[i] += int32_t(weights[4 * i + k]) * row[k];
  return acc;
}
INLINE IntVec add_scaled(IntVec acc, IntVec sums, IntVec by) {
  return acc + sums * ((by << 16) >> 16);
}
#endif

// What sums of a group start from: less 8 for each number, times what it is multiplied by.
inline int32_t start_of(const int8_t* group) {
  int32_t halves[2] = {};
  for (int i = 0; i < GROUP; i++) halves[HAS_HALVES && i % 4 >= 2] -= 8 * group[i];
  return HAS_HALVES ? (halves[0] & 0xffff) | int32_t(uint32_t(halves[1]) << 16) : halves[0];
}

// Multipliers of WIDTH channels, as add_scaled() takes them.
INLINE IntVec multipliers(const uint8_t* from) {
  SmallVec small;
  std::memcpy(&small, from, sizeof small);
  IntVec low = __builtin_convertvector(small, IntVec) & 0xffff;
  return HAS_HALVES ? low | (low << 16) : low;
}

// A row's step: the bytes of a group, then what its sums start from.
constexpr int INT4_ROW_STEP = GROUP + sizeof(int32_t);

template <>
struct RowsProduct<Int4Format> {
  static constexpr int ROW_STEP = INT4_ROW_STEP, MOST_ROWS = WIDTH == 16 ? 6 : 4;

  static constexpr int fetches(int vecs) { return vecs; }

  template <int ROWS, int VECS>
  static void run(const int8_t* rows, int64_t stride, const uint8_t* block, int64_t channel,
                  int64_t steps, bool add, Prefetcher& prefetcher, int32_t* sums) {
    IntVec acc[ROWS][VECS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
      for (int v = 0; v < VECS; v++)
        acc[r][v] = add ? *reinterpret_cast<IntVec*>(sums + r * CHANNELS + v * WIDTH) : IntVec{};
    for (int64_t k = 0; k < steps; k++, rows += ROW_STEP, block += STEP_BYTES<Int4Format>) {
#pragma GCC unroll 16
      for (int v = 0; v < VECS; v++) {
        prefetcher.fetch();
        int64_t first = channel + v * WIDTH;
        IntVec group[ROWS];
        add_group<ROWS>(rows, stride, block + first / CHANNELS_TOGETHER * CHANNELS_TOGETHER * GROUP / 2 + first % CHANNELS_TOGETHER * 4,
                        group);
        IntVec by = multipliers(block + NUMBER_BYTES + first);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) acc[r][v] = add_scaled(acc[r][v], group[r], by);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
      for (int v = 0; v < VECS; v++)
        *reinterpret_cast<IntVec*>(sums + r * CHANNELS + v * WIDTH) = acc[r][v];
  }

 private:
  // numbers: of WIDTH channels, CHANNELS_TOGETHER * 4 bytes apart.
  template <int ROWS>
  static INLINE void add_group(const int8_t* rows, int64_t stride, const uint8_t* numbers,
                               IntVec* sums) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sums[r] = IntVec{} + four(rows + r * stride + GROUP);
#pragma GCC unroll 4
    for (int i = 0; i < GROUP; i += 8) {
      ByteVec both;
      std::memcpy(&both, numbers + i / 8 * CHANNELS_TOGETHER * 4, sizeof both);
      ByteVec low = both & 15, high = (both >> 4) & 15;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        sums[r] = add_products(sums[r], low, four(rows + r * stride + i));
        sums[r] = add_products(sums[r], high, four(rows + r * stride + i + 4));
      }
    }
  }

  static INLINE int32_t four(const int8_t* from) {
    int32_t out;
    std::memcpy(&out, from, sizeof out);
    return out;
  }
};

}  // namespace millstream
