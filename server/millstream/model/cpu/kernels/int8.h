// Linear layers by weights of eight bits with a scale per output channel: rows rounded to bytes or
// words, then multiplied as they are few or many. Both ways add up the same whole numbers.
#pragma once

#include <ATen/ops/empty.h>

#include <vector>

#include "int8_tiles.h"
#include "linear.h"

namespace millstream {

constexpr int64_t INT8_TILE_ROWS = 12;  // from which on matrix units are faster

INLINE IntVec load_ints(const int32_t* from, int count) {
  IntVec out = {};
  std::memcpy(&out, from, count * sizeof(int32_t));
  return out;
}

// A row as whole numbers, shifted; returns its scale, which is NaN if a number in it is not finite.
// Rounds to the nearest, ties to even.
template <typename P, typename T>
float round_row(const T* row, int64_t size, typename P::Row* to) {
  typedef typename P::Row RowVec __attribute__((vector_size(WIDTH * sizeof(typename P::Row))));
  Vec largest_of = {}, zeros = {};
  each_vector(size, [&](int64_t i, auto count) {
    Vec x = load_some(row + i, count);
    zeros += x * 0.0f;
    largest_of = larger(largest_of, x < 0.0f ? -x : x);
  });
  float largest = 0;
  for (int k = 0; k < WIDTH; k++) largest = std::max(largest, largest_of[k]);
  float scale = std::max(largest * (1.0f / P::most(size)), 1e-7f) + sum(zeros);
  const float magic = 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
  each_vector(size, [&](int64_t i, auto count) {
    Vec x = load_some(row + i, count) / scale + magic;
    auto whole = __builtin_convertvector((IntVec)x - (IntVec)splat(magic) + P::SHIFT, RowVec);
    std::memcpy(to + i, &whole, count * sizeof(typename P::Row));
  });
  return scale;
}

// What an int8 product needs beside rows and weight. sums [outputs]: of each channel's weights;
// scales [outputs]: theirs; bias [outputs] or nothing.
struct Int8Weight {
  const Tensor &packed, &sums, &scales;
  const MaybeTensor& bias;
};

// Rows rounded to bytes or words, side by side or as tiles, and their scales.
template <typename P, typename T>
class Int8Rows {
 public:
  Int8Rows(const Tensor& x, int64_t steps, bool in_tiles)
      : scales(x.size(0)), stride_(steps * P::STEP) {
    Rows from(x);
    int64_t tiles = padded(stride_, TILE_WIDTH) / TILE_WIDTH;
    numbers.resize(in_tiles ? padded(from.outer, TILE_ROWS) * tiles * TILE_WIDTH
                            : from.outer * stride_);
    auto values = data<T>(x);
    each_row(from.outer, from.size, [&](int64_t row) {
      if (!in_tiles) {
        scales[row] = round_row<P>(values + from[row], from.size, &numbers[row * stride_]);
        return;
      }
      std::vector<typename P::Row> whole(tiles * TILE_WIDTH);
      scales[row] = round_row<P>(values + from[row], from.size, whole.data());
      for (int64_t i = 0; i < tiles; i++)
        std::copy_n(&whole[i * TILE_WIDTH], TILE_WIDTH,
                    &numbers[tile_offset(row, i * TILE_WIDTH, tiles)]);
    });
  }

  int64_t stride() const { return stride_; }

  std::vector<typename P::Row> numbers;
  std::vector<float> scales;

 private:
  int64_t stride_;
};

// out [M, outputs] = x [M, inputs], rounded to bytes or words with a scale per row, times the weight
// with a scale per output channel, plus bias
template <typename P, typename T>
void int8_product(const Tensor& x, const Int8Weight& by, const NextWeight& next,
                  const Tensor& out) {
  int64_t outputs = out.size(1), count = x.size(0);
  auto weight = packed_weight<P>(by.packed, outputs, x.size(1));
  bool in_tiles = std::is_same_v<P, Int8Format> && count >= INT8_TILE_ROWS && may_use_tiles();
  Int8Rows<P, T> rows(x, weight.steps, in_tiles);
  T* result = data<T>(out);
  auto [shifts, scales] = std::pair{data<int32_t>(by.sums), data<float>(by.scales)};
  const T* add = by.bias ? data<T>(*by.bias) : nullptr;
  auto finish = [&](int64_t row, int64_t channel, int channels, const int32_t* sums) {
    T* to = result + row * outputs + channel;
    each_vector(channels, [&](int64_t c, auto part) {
      IntVec sum;
      std::memcpy(&sum, sums + c, sizeof sum);
      if (P::SHIFT) sum -= P::SHIFT * load_ints(shifts + channel + c, part);
      Vec value = __builtin_convertvector(sum, Vec) * rows.scales[row];
      value *= load_some(scales + channel + c, part);
      if (add) value += load_some(add + channel + c, part);
      store_some(to + c, value, part);
    });
  };
  if (in_tiles)
    multiply_in_tiles(rows.numbers.data(), count, weight, next, finish);
  else
    multiply<P>(rows.numbers.data(), rows.stride(), count, weight, next, finish);
}

// As int8_product(): by bytes or by words, as the weight was packed.
inline void int8_linear_out(const Tensor& x, const Int8Weight& by, const NextWeight& next,
                            const Tensor& out) {
  int64_t outputs = out.size(1);
  const MaybeTensor& bias = by.bias;
  TORCH_CHECK(x.dim() == 2 && by.packed.scalar_type() == at::kChar && by.packed.dim() == 4 &&
              by.sums.scalar_type() == at::kInt && by.scales.scalar_type() == at::kFloat,
              "an int8 weight expected");
  TORCH_CHECK(by.sums.numel() == outputs && by.sums.is_contiguous() &&
              by.scales.numel() == outputs && by.scales.is_contiguous() &&
              (!bias || (bias->numel() == outputs && bias->is_contiguous() &&
                         bias->scalar_type() == x.scalar_type())), "sums, scales or bias do not fit");
  by_dtype({x, out}, [&](auto t) {
    if (by.packed.size(3) == Int12Format::STEP)
      int8_product<Int12Format, decltype(t)>(x, by, next, out);
    else
      int8_product<Int8Format, decltype(t)>(x, by, next, out);
  });
}

inline Tensor int8_linear(const Tensor& x, const Tensor& packed, const Tensor& sums,
                          const Tensor& scales, const MaybeTensor& bias) {
  Tensor out = at::empty({x.size(0), scales.numel()}, x.options());
  int8_linear_out(x, {packed, sums, scales, bias}, {}, out);
  return out;
}

}  // namespace millstream
