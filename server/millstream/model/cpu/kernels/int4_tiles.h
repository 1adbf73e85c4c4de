// Weights of four bits for many rows, where the processor has matrix units (AMX): 16 channels are
// taken apart once, and meet 32 rows at a time.
//
// A number times its multiplier does not fit into a byte. It is 128 times one byte plus another, and
// the sums of both are added up apart over all inputs.
#pragma once

#include "int4_format.h"
#include "tiles.h"

namespace millstream {

#if MILLSTREAM_HAS_TILES

// 64 numbers from 0 to 15 of 16 channels, less 8 and times multipliers, as upper and lower bytes.
// by: of each channel its multiplier twice.
INLINE void split_products(__m512i numbers, __m512i by, int8_t* upper, int8_t* lower) {
  __m512i zero = _mm512_setzero_si512(), eight = _mm512_set1_epi16(8);
  __m512i words[2] = {_mm512_unpacklo_epi8(numbers, zero), _mm512_unpackhi_epi8(numbers, zero)};
  __m512i factors[2] = {_mm512_unpacklo_epi32(by, by), _mm512_unpackhi_epi32(by, by)};
  __m512i high[2], low[2];
  for (int i = 0; i < 2; i++) {
    __m512i product = _mm512_mullo_epi16(_mm512_sub_epi16(words[i], eight), factors[i]);
    high[i] = _mm512_srai_epi16(product, 7);
    low[i] = _mm512_and_si512(product, _mm512_set1_epi16(127));
  }
  _mm512_store_si512(upper, _mm512_packs_epi16(high[0], high[1]));
  _mm512_store_si512(lower, _mm512_packs_epi16(low[0], low[1]));
}

// A block as tiles: of each 16 channels for each 64 inputs the upper bytes, then the lower ones.
inline void take_apart(const uint8_t* block, int64_t groups, int64_t tiles, int8_t* to) {
  for (int64_t g = 0; g < groups; g++, block += STEP_BYTES<Int4Format>)
    for (int64_t channel = 0; channel < CHANNELS; channel += 16) {
      __m512i by = (__m512i)multipliers(block + NUMBER_BYTES + channel);
      by = _mm512_or_si512(by, _mm512_slli_epi32(by, 16));
      int8_t* out = to + (channel / 16 * tiles + g / 2) * 2 * TILE_BYTES + g % 2 * (TILE_BYTES / 2);
#pragma GCC unroll 4
      for (int i = 0; i < GROUP / 8; i++, out += 128) {
        __m512i both = _mm512_loadu_si512(block + channel * GROUP / 2 + i * 64);
        __m512i mask = _mm512_set1_epi8(15);
        split_products(_mm512_and_si512(both, mask), by, out, out + TILE_BYTES);
        split_products(_mm512_and_si512(_mm512_srli_epi16(both, 4), mask), by, out + 64,
                       out + TILE_BYTES + 64);
      }
    }
}

// sums [32, CHANNELS]: 16 channels of 32 rows, or of 16 if there are no more.
template <bool HAS_TWO>
inline void multiply_tiles(const int8_t* rows, const int8_t* weights, int64_t tiles,
                           Prefetcher& prefetcher, int32_t* sums) {
  alignas(64) int32_t found[4][TILE_ROWS * 16];
  asm volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < tiles; k++, rows += TILE_BYTES, weights += 2 * TILE_BYTES) {
    prefetcher.fetch();
    _tile_loadd(4, rows, TILE_WIDTH);
    _tile_loadd(6, weights, TILE_WIDTH);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, weights + TILE_BYTES, TILE_WIDTH);
    _tile_dpbssd(1, 4, 7);
    if (HAS_TWO) {
      _tile_loadd(5, rows + tiles * TILE_BYTES, TILE_WIDTH);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  }
  _tile_stored(0, found[0], 64);
  _tile_stored(1, found[1], 64);
  _tile_stored(2, found[2], 64);
  _tile_stored(3, found[3], 64);
  for (int row = 0; row < TILE_ROWS * (1 + HAS_TWO); row++) {
    const int32_t* upper = found[row / TILE_ROWS * 2] + row % TILE_ROWS * 16;
    for (int i = 0; i < 16; i++)
      sums[row * CHANNELS + i] = upper[i] * 128 + upper[TILE_ROWS * 16 + i];
  }
}

// How a thread multiplies blocks of one weight.
class Int4Tiles {
 public:
  // rows: as tile_offset() says, padded to whole tiles.
  Int4Tiles(const int8_t* rows, int64_t count, const PackedWeight<Int4Format>& weight)
      : rows_(rows), count_(count), weight_(weight), tiles_((weight.steps + 1) / 2) {}

  // finish(row, sums) for all rows and the channels of a block. after: needed next.
  template <typename F>
  void run(int64_t block, Prefetcher after, F&& finish) {
    thread_local std::vector<CacheLine> memory;
    memory.resize(std::max<size_t>(memory.size(), tiles_ * CHANNELS * 2));
    int8_t* weights = memory[0].bytes;
    alignas(64) int32_t sums[2 * TILE_ROWS * CHANNELS];
    int64_t passes = padded(count_, 2 * TILE_ROWS) / (2 * TILE_ROWS);
    after.set_pace(weight_.block_bytes() / LINE, passes * tiles_ * (CHANNELS / 16));
    take_apart(weight_.block(block), weight_.steps, tiles_, weights);
    for (int64_t first = 0; first < count_; first += 2 * TILE_ROWS) {
      const int8_t* some = rows_ + tile_offset(first, 0, tiles_);
      for (int part = 0; part < CHANNELS / 16; part++) {
        const int8_t* by = weights + part * tiles_ * 2 * TILE_BYTES;
        if (first + TILE_ROWS < count_)
          multiply_tiles<true>(some, by, tiles_, after, sums + part * 16);
        else
          multiply_tiles<false>(some, by, tiles_, after, sums + part * 16);
      }
      int64_t end = std::min(count_, first + 2 * TILE_ROWS);
      for (int64_t row = first; row < end; row++) finish(row, sums + (row - first) * CHANNELS);
    }
  }

 private:
  struct alignas(64) CacheLine {
    int8_t bytes[64];
  };
  const int8_t* rows_;
  int64_t count_;
  const PackedWeight<Int4Format>& weight_;
  int64_t tiles_;
  TileSetting setting_;
};

template <typename F>
void multiply_in_tiles(const int8_t* rows, int64_t count, const PackedWeight<Int4Format>& weight,
                       const NextWeight& next, F&& finish) {
  multiply_blocks<Int4Tiles>(rows, count, weight, next, finish);
}

#else

template <typename F>
void multiply_in_tiles(const int8_t*, int64_t, const PackedWeight<Int4Format>&, const NextWeight&,
                       F&&) {}

#endif

}  // namespace millstream
