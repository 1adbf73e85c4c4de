// Linear layers by weights of four bits: rows rounded to bytes, then multiplied as they are few or
// many. Both ways add up the same whole numbers, so a row's result is the same in both.
#pragma once

#include <ATen/ops/empty.h>

#include <vector>

#include "int4_tiles.h"
#include "int8.h"

namespace millstream {

constexpr int64_t MANY_ROWS = 24;  // from which on matrix units are faster

// What a product needs beside rows. packed [blocks, groups, bytes]; scales, bias: of each output.
struct Int4Weight {
  const Tensor &packed, &scales;
  const MaybeTensor& bias;
};

// Rows rounded to bytes, group by group, and their scales. Inputs that fill the last group are zero.
template <typename T>
class Int4Rows {
 public:
  Int4Rows(const Tensor& x, int64_t groups, bool in_tiles) : scales(x.size(0)), groups_(groups) {
    Rows from(x);
    int64_t tiles = (groups + 1) / 2;
    numbers.resize(in_tiles ? padded(from.outer, TILE_ROWS) * tiles * TILE_WIDTH
                            : from.outer * stride());
    auto values = data<T>(x);
    each_row(from.outer, from.size, [&](int64_t row) {
      std::vector<int8_t> whole(groups * GROUP);
      scales[row] = round_row<Int4Format>(values + from[row], from.size, whole.data());
      for (int64_t g = 0; g < groups; g++) {
        const int8_t* group = whole.data() + g * GROUP;
        int8_t* to = numbers.data() + (in_tiles ? tile_offset(row, g * GROUP, tiles)
                                                : row * stride() + g * INT4_ROW_STEP);
        std::memcpy(to, group, GROUP);
        int32_t start = start_of(group);
        if (!in_tiles) std::memcpy(to + GROUP, &start, sizeof start);
      }
    });
  }

  int64_t stride() const { return groups_ * INT4_ROW_STEP; }

  std::vector<int8_t> numbers;
  std::vector<float> scales;

 private:
  int64_t groups_;
};

template <typename T>
void int4_product(const Tensor& x, const Int4Weight& by, const NextWeight& next,
                  const Tensor& out) {
  int64_t outputs = out.size(1), count = x.size(0), groups = by.packed.size(1);
  PackedWeight<Int4Format> weight{data<uint8_t>(by.packed), outputs, groups};
  bool in_tiles = count >= MANY_ROWS && may_use_tiles();
  Int4Rows<T> rows(x, groups, in_tiles);
  auto [result, scales] = std::pair{data<T>(out), data<float>(by.scales)};
  const T* add = by.bias ? data<T>(*by.bias) : nullptr;
  auto finish = [&](int64_t row, int64_t channel, int channels, const int32_t* sums) {
    T* to = result + row * outputs + channel;
    each_vector(channels, [&](int64_t c, auto part) {
      IntVec sum;
      std::memcpy(&sum, sums + c, sizeof sum);
      Vec value = __builtin_convertvector(sum, Vec) * rows.scales[row];
      value *= load_some(scales + channel + c, part);
      if (add) value += load_some(add + channel + c, part);
      store_some(to + c, value, part);
    });
  };
  if (in_tiles)
    multiply_in_tiles(rows.numbers.data(), count, weight, next, finish);
  else
    multiply<Int4Format>(rows.numbers.data(), rows.stride(), count, weight, next, finish);
}

// out [M, outputs] = x [M, inputs], rounded to bytes with a scale per row, times the weight, plus bias
inline void int4_linear_out(const Tensor& x, const Int4Weight& by, const NextWeight& next,
                            const Tensor& out) {
  const Tensor& packed = by.packed;
  const MaybeTensor& bias = by.bias;
  int64_t outputs = out.size(1);
  TORCH_CHECK(x.dim() == 2 && packed.scalar_type() == at::kByte && packed.dim() == 3 &&
              packed.is_contiguous() && packed.size(2) == STEP_BYTES<Int4Format>,
              "not a packed weight of four bits");
  TORCH_CHECK(outputs > 0 && padded(outputs, CHANNELS) / CHANNELS == packed.size(0) &&
              padded(x.size(1), GROUP) / GROUP == packed.size(1), "rows and weight do not fit");
  TORCH_CHECK(by.scales.scalar_type() == at::kFloat && by.scales.numel() == outputs &&
              by.scales.is_contiguous() &&
              (!bias || (bias->numel() == outputs && bias->is_contiguous() &&
                         bias->scalar_type() == x.scalar_type())), "scales or bias do not fit");
  by_dtype({x, out}, [&](auto t) { int4_product<decltype(t)>(x, by, next, out); });
}

inline Tensor int4_linear(const Tensor& x, const Tensor& packed, const Tensor& scales,
                          const MaybeTensor& bias) {
  Tensor out = at::empty({x.size(0), scales.numel()}, x.options());
  int4_linear_out(x, {packed, scales, bias}, {}, out);
  return out;
}

}  // namespace millstream
