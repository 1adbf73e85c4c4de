// Weights of four and of eight bits in groups of inputs, and how rows of bytes meet them.
//
// A weight is a whole number, times a multiplier that its group shares, plus an offset of the group's
// if the format has offsets, times a scale that the channel has. All but the last are whole numbers,
// and rows are bytes, so a product is exact in any order, whoever adds it up, but for that scale.
#pragma once

#include "byte_products.h"
#include "products.h"

namespace millstream {

constexpr int SECTION = 32;            // inputs whose numbers lie together
constexpr int CHANNELS_TOGETHER = 16;  // channels whose numbers do
constexpr int VECS_UNROLLED = WIDTH == 16 ? 16 : 1;  // narrow vectors are too many for registers
constexpr int SEGMENT = 8;             // sections, whose sums fit into 32 bits with any multipliers

// A block's step is one group of its channels, of SECTIONS_ times 32 inputs. For each section and
// each 16 channels come lines of 64 bytes, each of four inputs of all of them. Four bits are stored
// plus 8, of the next four inputs in the high halves of a line. Then come the multipliers of the
// channels, and their offsets: of one byte each, or of two bytes if IS_WIDE_.
template <int BITS_, int SECTIONS_, bool IS_WIDE_, bool HAS_OFFSETS_>
struct GroupedFormat {
  using Row = int8_t;
  using Weight = uint8_t;
  using Sum = IntVec;
  using Scalar = int32_t;
  static constexpr int BITS = BITS_, SECTIONS = SECTIONS_;
  static constexpr bool IS_WIDE = IS_WIDE_, HAS_OFFSETS = HAS_OFFSETS_;
  static constexpr int STEP = SECTIONS * SECTION, SHIFT = 0;
  static constexpr int SECTION_BYTES = CHANNELS * SECTION * BITS / 8;
  static constexpr int MULTIPLIERS = SECTIONS * SECTION_BYTES;  // where they are
  static constexpr int OFFSETS = MULTIPLIERS + CHANNELS * (1 + IS_WIDE);
  // A row's step: of each section its bytes and what its sums start from, then the bytes' sum.
  static constexpr int ROW_SECTION = SECTION + sizeof(int32_t);
  static constexpr int ROW_STEP = SECTIONS * ROW_SECTION + HAS_OFFSETS * sizeof(int32_t);
  static constexpr int most(int64_t) { return 127; }
};

template <int B, int S, bool W, bool O>
constexpr int STEP_BYTES<GroupedFormat<B, S, W, O>> =
    GroupedFormat<B, S, W, O>::OFFSETS + O * 2 * CHANNELS;

template <int B, int S, bool W, bool O>
constexpr int WORDS<GroupedFormat<B, S, W, O>> = W ? 2 : 1;  // see add_to_parts()

#if defined(__AVX512BW__) || defined(__AVX2__)
constexpr bool GROUPS_ARE_FAST = true;
#else
constexpr bool GROUPS_ARE_FAST = false;
#endif

// What sums of a section start from, since numbers are stored plus a constant.
template <typename P>
int32_t start_of(const int8_t* section) {
  if (P::BITS == 8 && !BYTES_ARE_SHIFTED) return 0;
  constexpr bool in_halves = P::BITS == 4 && HAS_HALVES;
  int32_t halves[2] = {};
  for (int i = 0; i < SECTION; i++)
    halves[in_halves && i % 4 >= 2] -= (P::BITS == 4 ? 8 : 128) * section[i];
  return in_halves ? (halves[0] & 0xffff) | int32_t(uint32_t(halves[1]) << 16) : halves[0];
}

// Multipliers or offsets of WIDTH channels, as add_scaled() and add_scaled_words() take them.
template <typename P>
INLINE IntVec factors(const uint8_t* from) {
  if constexpr (P::IS_WIDE)
    return load_whole<int16_t>(from);
  else
    return load_whole<int8_t>(from);
}

// A sum as two words of which the first counts 256 times: so they add up without an end, whatever
// the order, and only their total has a meaning.
INLINE void add_to_parts(IntVec sum, bool add, int32_t* parts) {
  IntVec upper = sum >> 8, lower = sum & 255;
  auto high = reinterpret_cast<IntVec*>(parts), low = reinterpret_cast<IntVec*>(parts + CHANNELS);
  *high = add ? *high + upper : upper;
  *low = add ? *low + lower : lower;
}

// The total of WIDTH sums as floats. from: as a format's products leave them.
template <typename P>
INLINE Vec total_of(const int32_t* from) {
  IntVec first, second;
  std::memcpy(&first, from, sizeof first);
  if constexpr (!P::IS_WIDE) return __builtin_convertvector(first, Vec);
  std::memcpy(&second, from + CHANNELS, sizeof second);
  IntVec upper = first + (second >> 8), lower = second & 255;  // one way to write a total
  return __builtin_convertvector(upper, Vec) * 256.0f + __builtin_convertvector(lower, Vec);
}

template <int B, int S, bool W, bool O>
struct RowsProduct<GroupedFormat<B, S, W, O>> {
  using P = GroupedFormat<B, S, W, O>;
  static constexpr int ROW_STEP = P::ROW_STEP, MOST_ROWS = WIDTH == 16 ? 6 : 4;
  static constexpr int UNAIDED_ROWS = 0;

  static constexpr int fetches(int vecs) { return vecs * S; }

  template <int ROWS, int VECS>
  static NOINLINE void run(const int8_t* rows, int64_t stride, const uint8_t* block, int64_t channel,
                  int64_t steps, bool add, Prefetcher& prefetcher, int32_t* sums) {
    constexpr int64_t AT_ONCE = W ? SEGMENT / S : INT64_MAX;  // steps
    // Vectors that many rows meet together, so that what is read of a row serves all of them.
    constexpr int TOGETHER = WIDTH == 16 && ROWS > 2 ? 2 : 1;
    constexpr int PART = TOGETHER > 1 ? TOGETHER : VECS;
    for (int v = 0; v < VECS; v += PART)
      for (int64_t k = 0; k < steps; k += AT_ONCE)
        add_steps<ROWS, PART, TOGETHER>(
            rows + k * ROW_STEP, stride, block + k * STEP_BYTES<P>, channel + v * WIDTH,
            std::min(AT_ONCE, steps - k), add || k > 0, prefetcher, sums + v * WIDTH);
  }

 private:
  template <int ROWS, int VECS, int TOGETHER>
  static INLINE void add_steps(const int8_t* rows, int64_t stride, const uint8_t* block,
                               int64_t channel, int64_t steps, bool add, Prefetcher& prefetcher,
                               int32_t* sums) {
    IntVec acc[ROWS][VECS] = {};
    for (int64_t k = 0; k < steps; k++, rows += ROW_STEP, block += STEP_BYTES<P>) {
#pragma GCC unroll VECS_UNROLLED
      for (int v = 0; v < VECS; v += TOGETHER) {
        int64_t first = channel + v * WIDTH;
        IntVec by[TOGETHER];
#pragma GCC unroll 2
        for (int t = 0; t < TOGETHER; t++)
          by[t] = factors<P>(block + P::MULTIPLIERS + (first + t * WIDTH) * (1 + W));
        for (int s = 0; s < S; s++) {
          IntVec of_section[ROWS][TOGETHER];
          add_section<ROWS, TOGETHER>(rows + s * P::ROW_SECTION, stride,
                                      block + s * P::SECTION_BYTES, first, of_section);
#pragma GCC unroll 2
          for (int t = 0; t < TOGETHER; t++) {
            prefetcher.fetch();
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
              acc[r][v + t] = scaled(acc[r][v + t], of_section[r][t], by[t]);
          }
        }
        for (int t = 0; O && t < TOGETHER; t++) {
          IntVec more = factors<P>(block + P::OFFSETS + (first + t * WIDTH) * 2);
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; r++)
            acc[r][v + t] = add_scaled_words(
                acc[r][v + t], IntVec{} + four(rows + r * stride + S * P::ROW_SECTION), more);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
      for (int v = 0; v < VECS; v++) {
        int32_t* to = sums + r * CHANNELS * WORDS<P> + v * WIDTH;
        auto sum = reinterpret_cast<IntVec*>(to);
        if constexpr (W)
          add_to_parts(acc[r][v], add, to);
        else
          *sum = add ? *sum + acc[r][v] : acc[r][v];
      }
  }

  // Where a section has the numbers of WIDTH channels; further ones are CHANNELS_TOGETHER * 4 bytes
  // apart.
  static INLINE int64_t line_of(int64_t channel) {
    return channel / CHANNELS_TOGETHER * CHANNELS_TOGETHER * SECTION * B / 8 +
           channel % CHANNELS_TOGETHER * 4;
  }

  static INLINE IntVec scaled(IntVec acc, IntVec sums, IntVec by) {
    if constexpr (B == 8) return acc + sums * by;
    return add_scaled(acc, sums, by);
  }

  // sums: of TOGETHER vectors, from channel `first` on. numbers: of the section.
  template <int ROWS, int TOGETHER>
  static INLINE void add_section(const int8_t* rows, int64_t stride, const uint8_t* numbers,
                                 int64_t first, IntVec (*sums)[TOGETHER]) {
    constexpr int PER_LINE = 32 / B;  // inputs
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
      for (int t = 0; t < TOGETHER; t++) sums[r][t] = IntVec{} + four(rows + r * stride + SECTION);
#pragma GCC unroll 8
    for (int i = 0; i < SECTION; i += PER_LINE) {
      ByteVec lines[TOGETHER];
#pragma GCC unroll 2
      for (int t = 0; t < TOGETHER; t++)
        std::memcpy(&lines[t],
                    numbers + line_of(first + t * WIDTH) + i / PER_LINE * CHANNELS_TOGETHER * 4,
                    sizeof lines[t]);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        const int8_t* row = rows + r * stride + i;
#pragma GCC unroll 2
        for (int t = 0; t < TOGETHER; t++) {
          if constexpr (B == 4) {
            sums[r][t] = add_small(sums[r][t], lines[t] & 15, four(row));
            sums[r][t] = add_small(sums[r][t], (lines[t] >> 4) & 15, four(row + 4));
          } else {
            sums[r][t] = SignedBytes(lines[t]).add_to(sums[r][t], four(row));
          }
        }
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
