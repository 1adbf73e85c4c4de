// Weights of eight bits with a scale per channel for many rows, where the processor has matrix units
// (AMX): tiles of weights are loaded from where they lie, and meet 32 rows at a time.
#pragma once

#include "number_formats.h"
#include "tiles.h"

namespace millstream {

#if MILLSTREAM_HAS_TILES

// How a thread multiplies blocks of one weight.
class Int8Tiles {
  static constexpr int STEPS = TILE_WIDTH / Int8Format::STEP;  // of a tile
  static constexpr int STEP = STEP_BYTES<Int8Format>, PARTS = CHANNELS / 32;
  static constexpr int PART_BYTES = 32 * Int8Format::STEP;

 public:
  // rows: as tile_offset() says, padded to whole tiles.
  Int8Tiles(const uint8_t* rows, int64_t count, const PackedWeight<Int8Format>& weight)
      : rows_(rows), count_(count), weight_(weight), whole_(weight.steps / STEPS),
        tiles_((weight.steps + STEPS - 1) / STEPS), setting_(std::min<int64_t>(count, TILE_ROWS)) {}

  // finish(row, sums) for all rows and the channels of a block. after: needed next.
  template <typename F>
  void run(int64_t block, Prefetcher after, F&& finish) {
    alignas(64) int32_t sums[2 * TILE_ROWS * CHANNELS];
    const int8_t* start = weight_.block(block);
    copy_last_tile(start);
    int64_t passes = padded(count_, 2 * TILE_ROWS) / (2 * TILE_ROWS);
    after.set_pace(weight_.block_bytes() / LINE, passes * PARTS * tiles_);
    for (int64_t first = 0; first < count_; first += 2 * TILE_ROWS) {
      const uint8_t* some = rows_ + tile_offset(first, 0, tiles_);
      bool has_two = first + TILE_ROWS < count_;
      for (int part = 0; part < PARTS; part++) {
        if (has_two)
          multiply<true>(some, start, part, after, sums + part * 32);
        else
          multiply<false>(some, start, part, after, sums + part * 32);
      }
      int64_t end = std::min(count_, first + 2 * TILE_ROWS);
      for (int64_t row = first; row < end; row++) finish(row, sums + (row - first) * CHANNELS);
    }
  }

 private:
  // What does not fill a tile: beyond a weight's end there may be no memory.
  void copy_last_tile(const int8_t* block) {
    std::memset(last_, 0, sizeof last_);
    std::memcpy(last_, block + whole_ * STEPS * STEP, (weight_.steps - whole_ * STEPS) * STEP);
  }

  // sums: 32 channels of 32 rows, or of 16 if there are no more.
  template <bool HAS_TWO>
  void multiply(const uint8_t* rows, const int8_t* block, int part, Prefetcher& prefetcher,
                int32_t* sums) {
    asm volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < tiles_; k++, rows += TILE_BYTES) {
      prefetcher.fetch();
      const int8_t* weights = (k < whole_ ? block + k * STEPS * STEP : last_) + part * PART_BYTES;
      _tile_loadd(4, rows, TILE_WIDTH);
      _tile_loadd(6, weights, STEP);
      _tile_dpbusd(0, 4, 6);
      _tile_loadd(7, weights + PART_BYTES / 2, STEP);
      _tile_dpbusd(1, 4, 7);
      if (HAS_TWO) {
        _tile_loadd(5, rows + tiles_ * TILE_BYTES, TILE_WIDTH);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      }
    }
    constexpr int STRIDE = CHANNELS * sizeof(int32_t);
    _tile_stored(0, sums, STRIDE);
    _tile_stored(1, sums + 16, STRIDE);
    if (HAS_TWO) {
      _tile_stored(2, sums + TILE_ROWS * CHANNELS, STRIDE);
      _tile_stored(3, sums + TILE_ROWS * CHANNELS + 16, STRIDE);
    }
    asm volatile("" ::: "memory");
  }

  const uint8_t* rows_;
  int64_t count_;
  const PackedWeight<Int8Format>& weight_;
  int64_t whole_, tiles_;
  alignas(64) int8_t last_[STEPS * STEP];
  TileSetting setting_;
};

template <typename F>
void multiply_in_tiles(const uint8_t* rows, int64_t count, const PackedWeight<Int8Format>& weight,
                       const NextWeight& next, F&& finish) {
  multiply_blocks<Int8Tiles>(rows, count, weight, next, finish);
}

#endif

// Without tiles, and for rows of words.
template <typename P, typename F>
void multiply_in_tiles(const typename P::Row*, int64_t, const PackedWeight<P>&, const NextWeight&,
                       F&&) {}

}  // namespace millstream
