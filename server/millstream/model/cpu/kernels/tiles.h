// Matrix units (AMX), where the processor has them: tiles of 16 rows of 64 bytes, and how rows lie for
// them.
#pragma once

#include "products.h"

#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__linux__)
#define MILLSTREAM_HAS_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <vector>

namespace millstream {

constexpr int TILE_ROWS = 16, TILE_WIDTH = 64;  // of rows and inputs, or of channels and inputs
constexpr int TILE_BYTES = TILE_ROWS * TILE_WIDTH;

// Where row `row` has its inputs from `input` on, if rows lie as tiles do, so many for all inputs.
inline int64_t tile_offset(int64_t row, int64_t input, int64_t tiles) {
  return (row / TILE_ROWS * tiles + input / TILE_WIDTH) * TILE_BYTES +
         row % TILE_ROWS * TILE_WIDTH + input % TILE_WIDTH;
}

#if MILLSTREAM_HAS_TILES

// Whether this process may use matrix units: Linux wants to be asked, once.
inline bool may_use_tiles() {
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // asm/prctl.h
  static bool may = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  return may;
}

struct alignas(64) TileShapes {
  uint8_t palette = 1, first_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// While it lives, this thread's tiles have a shape: those of rows and sums, 0 to 5, have `rows` rows,
// and those of weights, 6 and 7, are whole.
class TileSetting {
 public:
  explicit TileSetting(int rows = TILE_ROWS) {
    TileShapes shapes;
    std::fill(shapes.rows, shapes.rows + 6, rows);
    _tile_loadconfig(&shapes);
  }
  ~TileSetting() { _tile_release(); }
  TileSetting(const TileSetting&) = delete;
};

// As multiply(). Tiles: what multiplies the blocks of one weight, made by each thread. rows: as
// tile_offset() says, padded to whole tiles.
template <typename Tiles, typename P, typename F>
void multiply_blocks(const typename P::Row* rows, int64_t count, const PackedWeight<P>& weight,
                     const NextWeight& next_weight, F&& finish) {
  std::atomic<int64_t> next{0};
  each_unit(num_threads(), [&](int64_t, int) {
    Tiles tiles(rows, count, weight);
    for (int64_t n = next++, then; n < weight.blocks(); n = then) {
      then = next++;
      auto start = reinterpret_cast<const char*>(weight.block(then));
      Prefetcher after = then < weight.blocks() ? Prefetcher(start, weight.block_bytes())
                                                : next_weight.block(then - weight.blocks());
      int64_t channel = n * CHANNELS;
      int width = std::min<int64_t>(CHANNELS, weight.outputs - channel);
      tiles.run(n, after, [&](int64_t row, const int32_t* sums) {
        finish(row, channel, width, sums);
      });
    }
  });
}

#else

inline bool may_use_tiles() { return false; }

#endif

}  // namespace millstream
