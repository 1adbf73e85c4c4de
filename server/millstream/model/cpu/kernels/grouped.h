// Linear layers by weights in groups: rows rounded to bytes, then multiplied as they are few or many.
// Both ways add up the same whole numbers, so a row's result is the same in both.
#pragma once

#include <ATen/ops/empty.h>

#include <vector>

#include "grouped_tiles.h"
#include "int8.h"

namespace millstream {

constexpr int64_t MANY_ROWS = 24;  // from which on matrix units are faster

// What a product needs beside rows. packed [blocks, groups, bytes]; scales, bias: of each output.
struct GroupedWeight {
  const Tensor &packed, &scales;
  const MaybeTensor& bias;
};

// Rows rounded to bytes, and their scales. Inputs that fill the last group are zero.
template <typename P>
class GroupedRows {
 public:
  GroupedRows(const Tensor& x, int64_t steps, bool in_tiles) : scales(x.size(0)), steps_(steps) {
    Rows from(x);
    int64_t sections = steps * P::SECTIONS, tiles = (sections + 1) / 2;
    numbers.resize(in_tiles ? padded(from.outer, TILE_ROWS) * tiles * TILE_WIDTH
                            : from.outer * stride());
    each_row(from.outer, from.size, [&](int64_t row) {
      std::vector<int8_t> whole(sections * SECTION);
      by_dtype({x}, [&](auto t) {
        scales[row] = round_row<P>(data<decltype(t)>(x) + from[row], from.size, whole.data());
      });
      for (int64_t s = 0; in_tiles && s < sections; s++)
        std::memcpy(&numbers[tile_offset(row, s * SECTION, tiles)], &whole[s * SECTION], SECTION);
      for (int64_t k = 0; !in_tiles && k < steps; k++)
        set_step(&whole[k * P::STEP], &numbers[row * stride() + k * P::ROW_STEP]);
    });
  }

  int64_t stride() const { return steps_ * P::ROW_STEP; }

  std::vector<int8_t> numbers;
  std::vector<float> scales;

 private:
  static void set_step(const int8_t* whole, int8_t* to) {
    for (int s = 0; s < P::SECTIONS; s++, to += P::ROW_SECTION) {
      std::memcpy(to, whole + s * SECTION, SECTION);
      int32_t start = start_of<P>(whole + s * SECTION);
      std::memcpy(to + SECTION, &start, sizeof start);
    }
    if constexpr (P::HAS_OFFSETS) {
      int32_t sum = 0;
      for (int i = 0; i < P::STEP; i++) sum += whole[i];
      std::memcpy(to, &sum, sizeof sum);
    }
  }

  int64_t steps_;
};

template <typename P>
void grouped_product(const Tensor& x, const GroupedWeight& by, const NextWeight& next,
                     const Tensor& out) {
  int64_t outputs = out.size(1), count = x.size(0), steps = by.packed.size(1);
  TORCH_CHECK(outputs > 0 && padded(outputs, CHANNELS) / CHANNELS == by.packed.size(0) &&
              padded(x.size(1), P::STEP) / P::STEP == steps, "rows and weight do not fit");
  PackedWeight<P> weight{data<uint8_t>(by.packed), outputs, steps};
  bool in_tiles = count >= MANY_ROWS && may_use_tiles();
  GroupedRows<P> rows(x, steps, in_tiles);
  const float* scales = data<float>(by.scales);
  // Chosen for each row, not for the whole product: that would be compiled twice.
  auto finish = [&](int64_t row, int64_t channel, int channels, const int32_t* sums) {
    by_dtype({out}, [&](auto t) {
      using T = decltype(t);
      T* to = data<T>(out) + row * outputs + channel;
      const T* add = by.bias ? data<T>(*by.bias) + channel : nullptr;
      each_vector(channels, [&](int64_t c, auto part) {
        Vec value = total_of<P>(sums + c) * rows.scales[row];
        value *= load_some(scales + channel + c, part);
        if (add) value += load_some(add + c, part);
        store_some(to + c, value, part);
      });
    });
  };
  if (in_tiles)
    multiply_in_tiles(rows.numbers.data(), count, weight, next, finish);
  else
    multiply<P>(rows.numbers.data(), rows.stride(), count, weight, next, finish);
}

// Calls f(P{}) with the format of a packed weight, which its type and the bytes of a step tell apart.
template <typename F>
void by_format(const Tensor& packed, F&& f) {
  bool has_bytes = packed.scalar_type() == at::kChar;
  int64_t bytes = packed.dim() == 3 ? packed.size(2) : 0;
  bool is_known = false;
  auto try_format = [&](auto format) {
    using P = decltype(format);
    if (is_known || has_bytes != (P::BITS == 8) || bytes != STEP_BYTES<P>) return;
    is_known = true;
    f(format);
  };
  try_format(GroupedFormat<4, 1, false, false>{});
  try_format(GroupedFormat<4, 1, true, false>{});
  try_format(GroupedFormat<4, 1, true, true>{});
  try_format(GroupedFormat<4, 4, true, true>{});
  try_format(GroupedFormat<8, 1, true, false>{});
  TORCH_CHECK(is_known, "not a packed weight in groups");
}

// out [M, outputs] = x [M, inputs], rounded to bytes with a scale per row, times the weight, plus bias
inline void grouped_linear_out(const Tensor& x, const GroupedWeight& by, const NextWeight& next,
                               const Tensor& out) {
  int64_t outputs = out.size(1);
  const MaybeTensor& bias = by.bias;
  TORCH_CHECK(x.dim() == 2 && by.packed.is_contiguous() &&
              (by.packed.scalar_type() == at::kByte || by.packed.scalar_type() == at::kChar),
              "not a packed weight in groups");
  TORCH_CHECK(by.scales.scalar_type() == at::kFloat && by.scales.numel() == outputs &&
              by.scales.is_contiguous() &&
              (!bias || (bias->numel() == outputs && bias->is_contiguous() &&
                         bias->scalar_type() == x.scalar_type())), "scales or bias do not fit");
  TORCH_CHECK(x.scalar_type() == out.scalar_type(), "dtypes differ");
  by_format(by.packed, [&](auto format) {
    by_dtype({x}, [&](auto) { });
    grouped_product<decltype(format)>(x, by, next, out);
  });
}

inline Tensor grouped_linear(const Tensor& x, const Tensor& packed, const Tensor& scales,
                             const MaybeTensor& bias) {
  Tensor out = at::empty({x.size(0), scales.numel()}, x.options());
  grouped_linear_out(x, {packed, scales, bias}, {}, out);
  return out;
}

}  // namespace millstream
