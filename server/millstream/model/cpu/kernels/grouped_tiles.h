// Weights in groups for many rows, where the processor has matrix units (AMX): 16 channels are taken
// apart once, and meet 32 rows at a time.
//
// A number times its multiplier, with its offset, fits into 16 bits. It is 256 times its upper byte,
// which has a sign, plus its lower one, and the sums of both are added up apart over all inputs.
#pragma once

#include "grouped_format.h"
#include "tiles.h"

namespace millstream {

#if MILLSTREAM_HAS_TILES

// Words of 32 pairs of weights as bytes: of each pair the first and the second one.
struct BytePairs {
  __m512i first, second;

  INLINE void store(uint8_t* upper, uint8_t* lower) const {
    __m512i low = _mm512_set1_epi16(255);
    constexpr int CHOOSE = 0xca;  // by the first operand: of the second, or of the third
    _mm512_store_si512(upper, _mm512_ternarylogic_epi32(low, _mm512_srli_epi16(first, 8), second,
                                                        CHOOSE));
    _mm512_store_si512(lower, _mm512_ternarylogic_epi32(low, first, _mm512_slli_epi16(second, 8),
                                                        CHOOSE));
  }
};

// A line's weights as tiles have them. by, from: multipliers and what is added, in each word.
template <typename P>
INLINE void take_line_apart(__m512i line, __m512i by, __m512i from, uint8_t* upper,
                            uint8_t* lower) {
  auto weights = [&](__m512i numbers) {
    return _mm512_add_epi16(_mm512_mullo_epi16(numbers, by), from);
  };
  if constexpr (P::BITS == 4) {
    __m512i some = _mm512_set1_epi16(15);
    BytePairs{weights(_mm512_and_si512(line, some)),
              weights(_mm512_and_si512(_mm512_srli_epi16(line, 8), some))}
        .store(upper, lower);
    BytePairs{weights(_mm512_and_si512(_mm512_srli_epi16(line, 4), some)),
              weights(_mm512_srli_epi16(line, 12))}
        .store(upper + 64, lower + 64);
  } else {
    BytePairs{weights(_mm512_srai_epi16(_mm512_slli_epi16(line, 8), 8)),
              weights(_mm512_srai_epi16(line, 8))}
        .store(upper, lower);
  }
}

// A block as tiles: of each 16 channels for each 64 inputs the upper bytes, then the lower ones.
template <typename P>
void take_apart(const uint8_t* block, int64_t steps, int64_t tiles, uint8_t* to) {
  constexpr int LINES = SECTION * P::BITS / 32;  // of a section and 16 channels
  auto in_words = [](IntVec x) {
    return _mm512_or_si512((__m512i)(x & 0xffff), (__m512i)(x << 16));
  };
  for (int64_t k = 0; k < steps; k++, block += STEP_BYTES<P>)
    for (int64_t channel = 0; channel < CHANNELS; channel += 16) {
      IntVec by = factors<P>(block + P::MULTIPLIERS + channel * (1 + P::IS_WIDE));
      IntVec from = P::BITS == 4 ? by * -8 : IntVec{};
      if constexpr (P::HAS_OFFSETS) from += factors<P>(block + P::OFFSETS + channel * 2);
      __m512i multiplier = in_words(by), start = in_words(from);
      for (int s = 0; s < P::SECTIONS; s++) {
        int64_t section = k * P::SECTIONS + s;
        const uint8_t* lines = block + s * P::SECTION_BYTES + channel * SECTION * P::BITS / 8;
        uint8_t* out = to + (channel / 16 * tiles + section / 2) * 2 * TILE_BYTES +
                       section % 2 * (TILE_BYTES / 2);
#pragma GCC unroll 8
        for (int i = 0; i < LINES; i++, out += TILE_BYTES / 2 / LINES)
          take_line_apart<P>(_mm512_loadu_si512(lines + i * 64), multiplier, start, out,
                             out + TILE_BYTES);
      }
    }
}

// How a thread multiplies blocks of one weight.
template <typename P>
class GroupedTiles {
  static constexpr int SUMS = CHANNELS * WORDS<P>;  // of a row

 public:
  // rows: as tile_offset() says, padded to whole tiles.
  GroupedTiles(const int8_t* rows, int64_t count, const PackedWeight<P>& weight)
      : rows_(rows), count_(count), weight_(weight),
        tiles_((weight.steps * P::SECTIONS + 1) / 2) {}

  // finish(row, sums) for all rows and the channels of a block. after: needed next.
  template <typename F>
  void run(int64_t block, Prefetcher after, F&& finish) {
    thread_local std::vector<CacheLine> memory;
    memory.resize(std::max<size_t>(memory.size(), tiles_ * CHANNELS * 2));
    uint8_t* weights = memory[0].bytes;
    alignas(64) int32_t sums[2 * TILE_ROWS * SUMS];
    int64_t passes = padded(count_, 2 * TILE_ROWS) / (2 * TILE_ROWS);
    after.set_pace(weight_.block_bytes() / LINE, passes * tiles_ * (CHANNELS / 16));
    take_apart<P>(weight_.block(block), weight_.steps, tiles_, weights);
    for (int64_t first = 0; first < count_; first += 2 * TILE_ROWS) {
      const int8_t* some = rows_ + tile_offset(first, 0, tiles_);
      for (int part = 0; part < CHANNELS / 16; part++) {
        const uint8_t* by = weights + part * tiles_ * 2 * TILE_BYTES;
        if (first + TILE_ROWS < count_)
          multiply<true>(some, by, after, sums + part * 16);
        else
          multiply<false>(some, by, after, sums + part * 16);
      }
      int64_t end = std::min(count_, first + 2 * TILE_ROWS);
      for (int64_t row = first; row < end; row++) finish(row, sums + (row - first) * SUMS);
    }
  }

 private:
  struct alignas(64) CacheLine {
    uint8_t bytes[64];
  };

  // sums: 16 channels of 32 rows, or of 16 if there are no more.
  template <bool HAS_TWO>
  void multiply(const int8_t* rows, const uint8_t* weights, Prefetcher& prefetcher,
                int32_t* sums) {
    asm volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < tiles_; k++, rows += TILE_BYTES, weights += 2 * TILE_BYTES) {
      prefetcher.fetch();
      _tile_loadd(4, rows, TILE_WIDTH);
      _tile_loadd(6, weights, TILE_WIDTH);
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, weights + TILE_BYTES, TILE_WIDTH);
      _tile_dpbsud(1, 4, 7);
      if (HAS_TWO) {
        _tile_loadd(5, rows + tiles_ * TILE_BYTES, TILE_WIDTH);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
    }
    if constexpr (P::IS_WIDE) {
      constexpr int STRIDE = SUMS * sizeof(int32_t);
      _tile_stored(0, sums, STRIDE);
      _tile_stored(1, sums + CHANNELS, STRIDE);
      if (HAS_TWO) {
        _tile_stored(2, sums + TILE_ROWS * SUMS, STRIDE);
        _tile_stored(3, sums + TILE_ROWS * SUMS + CHANNELS, STRIDE);
      }
    } else {
      alignas(64) int32_t found[4][TILE_ROWS * 16];
      _tile_stored(0, found[0], 64);
      _tile_stored(1, found[1], 64);
      if (HAS_TWO) {
        _tile_stored(2, found[2], 64);
        _tile_stored(3, found[3], 64);
      }
      asm volatile("" ::: "memory");
      for (int row = 0; row < TILE_ROWS * (1 + HAS_TWO); row++) {
        const int32_t* upper = found[row / TILE_ROWS * 2] + row % TILE_ROWS * 16;
        for (int i = 0; i < 16; i++)
          sums[row * SUMS + i] = upper[i] * 256 + upper[TILE_ROWS * 16 + i];
      }
    }
    asm volatile("" ::: "memory");
  }

  const int8_t* rows_;
  int64_t count_;
  const PackedWeight<P>& weight_;
  int64_t tiles_;
  TileSetting setting_;
};

template <int B, int S, bool W, bool O, typename F>
void multiply_in_tiles(const int8_t* rows, int64_t count,
                       const PackedWeight<GroupedFormat<B, S, W, O>>& weight,
                       const NextWeight& next, F&& finish) {
  multiply_blocks<GroupedTiles<GroupedFormat<B, S, W, O>>>(rows, count, weight, next, finish);
}

#endif

}  // namespace millstream
