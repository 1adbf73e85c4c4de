// Products of rows and weights that were laid out once: blocks of 64 output channels, and of each
// channel as many inputs side by side as an instruction multiplies: two or four.
//
// Decoding is bound by memory at a few rows and by arithmetic at a few more: a block is streamed
// once and meets all rows on its way, and while it is multiplied the next one is asked for, a line
// at a time, and then what is read after the products (see prefetch.h). A block too large for a core's
// cache is taken in parts. A row's products are added up in the order of its inputs in any case:
// they depend on that row only.
#pragma once

#include <algorithm>
#include <atomic>

#include "elementwise.h"
#include "number_formats.h"
#include "prefetch.h"
#include "tensors.h"

namespace millstream {

constexpr int CHANNELS = 64;  // output channels of a block
constexpr int CHANNEL_VECS = CHANNELS / WIDTH;
constexpr int LINEAR_ROWS = WIDTH == 16 ? 6 : 1;
constexpr int ROWS_OF_SUMS = 48;
constexpr int64_t LARGEST_PART = 1 << 18;  // bytes of which two stay in a core's cache

template <typename P>
constexpr int STEP_BYTES = CHANNELS * P::STEP * sizeof(typename P::Weight);  // of a block

template <typename P>
constexpr int WORDS = 1;  // that hold a sum

// How one format is multiplied. ROW_STEP: elements of a row for a step; MOST_ROWS: at once; for up to
// UNAIDED_ROWS the processor sees by itself which memory comes next.
template <typename P>
struct RowsProduct {
  static constexpr int ROW_STEP = P::STEP, MOST_ROWS = LINEAR_ROWS;
  static constexpr int UNAIDED_ROWS = std::is_same_v<P, Bfloat16Format> ? MOST_ROWS : 1;

  // How often a step of VECS vectors asks for memory.
  static constexpr int fetches(int) { return 1; }

  template <int ROWS, int VECS>
  static NOINLINE void run(const typename P::Row* rows, int64_t stride, const typename P::Weight* block,
                  int64_t channel, int64_t steps, bool add, Prefetcher& prefetcher,
                  typename P::Scalar* sums);
};

// sums [ROWS, CHANNELS] = (add ? sums : 0) + ROWS rows times `steps` steps of VECS vectors of a
// block's channels, from `channel` on.
template <typename P>
template <int ROWS, int VECS>
void RowsProduct<P>::run(const typename P::Row* rows, int64_t stride,
                         const typename P::Weight* block, int64_t channel, int64_t steps, bool add,
                         Prefetcher& prefetcher, typename P::Scalar* sums) {
  block += channel * P::STEP;
  typename P::Sum acc[ROWS][VECS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECS; v++)
      acc[r][v] = add ? *reinterpret_cast<typename P::Sum*>(sums + r * CHANNELS + v * WIDTH)
                      : typename P::Sum{};
  for (int64_t k = 0; k < steps; k++) {
    prefetcher.fetch();
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
      for (int v = 0; v < VECS; v++)
        acc[r][v] = P::multiply_add(acc[r][v], rows + r * stride + k * P::STEP,
                                    block + (k * CHANNELS + v * WIDTH) * P::STEP);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECS; v++)
      *reinterpret_cast<typename P::Sum*>(sums + r * CHANNELS + v * WIDTH) = acc[r][v];
}

template <typename P, int VECS, typename... Arguments>
void multiply_some(int count, Arguments&&... arguments) {
  switch (count) {
    case 1: return RowsProduct<P>::template run<1, VECS>(arguments...);
    case 2: return RowsProduct<P>::template run<2, VECS>(arguments...);
    case 3: return RowsProduct<P>::template run<3, VECS>(arguments...);
    case 4: return RowsProduct<P>::template run<4, VECS>(arguments...);
    case 5: return RowsProduct<P>::template run<5, VECS>(arguments...);
    default: return RowsProduct<P>::template run<6, VECS>(arguments...);
  }
}

// Weights as they are read, block by block, and of each block step by step.
template <typename P>
struct PackedWeight {
  const typename P::Weight* start;
  int64_t outputs, steps;

  int64_t blocks() const { return padded(outputs, CHANNELS) / CHANNELS; }
  const typename P::Weight* block(int64_t n, int64_t step = 0) const {
    return start + (n * steps + step) * (STEP_BYTES<P> / sizeof(typename P::Weight));
  }
  int64_t block_bytes() const { return steps * STEP_BYTES<P>; }
};

// What the product after this one begins with: each thread asks for one block of it. queue: what
// is read after both.
struct NextWeight {
  const char* start = nullptr;
  int64_t size = 0, block_bytes = 0;  // size: of all blocks
  PrefetchQueue* queue = nullptr;

  Prefetcher block(int64_t n) const {
    if (n * block_bytes >= size) return {};
    return {start + n * block_bytes, block_bytes};
  }
};

// Which channels a thread multiplies at a time: blocks, but for the last few, which are halved so
// that all threads end at once.
class Units {
 public:
  Units(int64_t blocks, int threads) : whole_(blocks - blocks % threads), blocks_(blocks) {}

  int64_t count() const { return 2 * blocks_ - whole_; }
  bool is_half(int64_t unit) const { return unit >= whole_; }
  int64_t block(int64_t unit) const { return is_half(unit) ? (unit + whole_) / 2 : unit; }
  int64_t channel(int64_t unit) const {
    return block(unit) * CHANNELS + (is_half(unit) ? (unit - whole_) % 2 * (CHANNELS / 2) : 0);
  }

 private:
  int64_t whole_, blocks_;
};

// The rows that are multiplied by one unit of a weight.
template <typename P>
class Multiplier {
 public:
  Multiplier(const typename P::Row* rows, int64_t stride, int64_t count,
             const PackedWeight<P>& weight)
      : rows_(rows), stride_(stride), count_(count), weight_(weight),
        part_(std::min(weight.steps, LARGEST_PART / STEP_BYTES<P>)) {}

  // Whether a block stays in a core's cache as a whole.
  bool is_one_part() const { return part_ == weight_.steps; }

  // finish(row, sums) for all rows; channel: of the block, where to begin. after: needed next.
  template <int VECS, typename F>
  void run(int64_t block, int64_t channel, Prefetcher after, F&& finish) {
    alignas(64) typename P::Scalar sums[ROWS_OF_SUMS * CHANNELS * WORDS<P>];
    bool is_one_part = this->is_one_part();
    if (is_one_part) pace(after, count_, VECS);
    for (int64_t first = 0; first < count_; first += ROWS_OF_SUMS) {
      int64_t some = std::min<int64_t>(ROWS_OF_SUMS, count_ - first);
      for (int64_t k = 0; k < weight_.steps; k += part_) {
        auto start = weight_.block(block, k);
        Prefetcher part = is_one_part ? after : next_part(block, k, first + some < count_, after);
        if (!is_one_part) pace(part, some, VECS);
        Prefetcher& prefetcher = is_one_part ? after : part;
        for (int64_t r = 0, left = passes(some), rows; r < some; r += rows, left--) {
          rows = (some - r + left - 1) / left;
          multiply_some<P, VECS>(
              rows, rows_ + (first + r) * stride_ + k * RowsProduct<P>::ROW_STEP, stride_, start,
              channel, std::min(part_, weight_.steps - k), k > 0, prefetcher,
              sums + r * CHANNELS * WORDS<P>);
        }
      }
      for (int64_t r = 0; r < some; r++) finish(first + r, sums + r * CHANNELS * WORDS<P>);
    }
  }

 private:
  static int64_t passes(int64_t rows) {
    return (rows + RowsProduct<P>::MOST_ROWS - 1) / RowsProduct<P>::MOST_ROWS;
  }

  // As many lines a step as a pass reads, and one more if something is needed later.
  static void pace(Prefetcher& prefetcher, int64_t rows, int vecs) {
    int64_t passes = Multiplier::passes(rows);
    int64_t lines = STEP_BYTES<P> / LINE + prefetcher.has_more();
    prefetcher.set_pace(rows <= RowsProduct<P>::UNAIDED_ROWS ? 0 : lines, passes * RowsProduct<P>::fetches(vecs));
  }

  Prefetcher next_part(int64_t block, int64_t k, bool has_more_rows, const Prefetcher& after) const {
    auto start = reinterpret_cast<const char*>(weight_.block(block));
    int64_t next = k + part_ < weight_.steps ? k + part_ : 0;
    if (next == 0 && !has_more_rows)
      return after.front(part_ * STEP_BYTES<P>);
    return {start + next * STEP_BYTES<P>, std::min(part_, weight_.steps - next) * STEP_BYTES<P>};
  }

  const typename P::Row* rows_;
  int64_t stride_, count_;
  const PackedWeight<P>& weight_;
  int64_t part_;
};

// Calls finish(row, first channel, number of channels, sums) for every row and all channels.
// rows: of `steps` steps each, `stride` apart.
template <typename P, typename F>
void multiply(const typename P::Row* rows, int64_t stride, int64_t count,
              const PackedWeight<P>& weight, const NextWeight& next_weight, F&& finish) {
  if (!count) return;
  int threads = num_threads();
  Units units(weight.blocks(), threads);
  std::atomic<int64_t> next{0};
  each_unit(threads, [&](int64_t, int) {
    Multiplier<P> multiplier(rows, stride, count, weight);
    for (int64_t unit = next++, then; unit < units.count(); unit = then) {
      then = next++;  // it is this thread's now, and asked for in the meantime
      auto start = reinterpret_cast<const char*>(weight.block(units.block(then)));
      Prefetcher prefetcher = then < units.count() ? Prefetcher(start, weight.block_bytes())
                                                   : next_weight.block(then - units.count());
      if (multiplier.is_one_part()) prefetcher.then(next_weight.queue, weight.steps * LINE);
      int64_t channel = units.channel(unit), in_block = channel % CHANNELS;
      int width = units.is_half(unit) ? CHANNELS / 2 : CHANNELS;
      auto done = [&](int64_t row, const typename P::Scalar* sums) {
        if (channel < weight.outputs)
          finish(row, channel, std::min<int64_t>(width, weight.outputs - channel), sums);
      };
      if (units.is_half(unit))
        multiplier.template run<CHANNEL_VECS / 2>(units.block(unit), in_block, prefetcher, done);
      else
        multiplier.template run<CHANNEL_VECS>(units.block(unit), 0, prefetcher, done);
    }
  });
}

}  // namespace millstream
