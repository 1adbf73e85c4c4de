// Linear layers as products.h multiplies them: laid out once, then rows in, rows out.
#pragma once

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "products.h"

namespace millstream {

template <typename P>
void pack(const typename P::Weight* weight, int64_t outputs, int64_t inputs, int64_t steps,
          typename P::Weight* to) {
  at::parallel_for(0, outputs, CHANNELS, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      auto row = to + (n / CHANNELS * steps * CHANNELS + n % CHANNELS) * P::STEP;
      for (int64_t k = 0; k < inputs; k++)
        row[k / P::STEP * CHANNELS * P::STEP + k % P::STEP] = weight[n * inputs + k];
    }
  });
}

template <typename P>
Tensor packed(const Tensor& weight) {
  int64_t outputs = weight.size(0), inputs = weight.size(1);
  int64_t blocks = padded(outputs, CHANNELS) / CHANNELS, steps = padded(inputs, P::STEP) / P::STEP;
  Tensor out = at::zeros({blocks, steps, CHANNELS, P::STEP}, weight.options());
  pack<P>(data<typename P::Weight>(weight), outputs, inputs, steps, data<typename P::Weight>(out));
  return out;
}

// weight [outputs, inputs], bfloat16 or int8 -> [blocks, steps, CHANNELS, STEP]. activation_bits:
// what rows are rounded to where the weight is int8, 8 or 12.
inline Tensor pack_weight(const Tensor& weight, int64_t activation_bits) {
  TORCH_CHECK(activation_bits == 8 || activation_bits == 12, "rows have 8 or 12 bits");
  bool is_wide = activation_bits == 12;
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), "a contiguous matrix expected");
  if (weight.scalar_type() == at::kBFloat16 && !is_wide) return packed<Bfloat16Format>(weight);
  TORCH_CHECK(weight.scalar_type() == at::kChar, "dtype not supported: ", weight.scalar_type());
  return is_wide ? packed<Int12Format>(weight) : packed<Int8Format>(weight);
}

template <typename P>
PackedWeight<P> packed_weight(const Tensor& packed, int64_t outputs, int64_t inputs) {
  TORCH_CHECK(packed.dim() == 4 && packed.is_contiguous() && packed.size(2) == CHANNELS &&
              packed.size(3) == P::STEP, "not a packed weight");
  TORCH_CHECK(outputs > 0 && padded(outputs, CHANNELS) / CHANNELS == packed.size(0) &&
              padded(inputs, P::STEP) / P::STEP == packed.size(1), "rows and weight do not fit");
  return {data<typename P::Weight>(packed), outputs, packed.size(1)};
}

inline NextWeight next_weight(const Tensor& packed) {
  int64_t block_bytes = packed.stride(0) * packed.element_size();
  return {data<char>(packed), packed.size(0) * block_bytes, block_bytes};
}

// out [M, outputs] = x [M, inputs] times a packed bfloat16 weight, plus bias [outputs]
inline void packed_linear_out(const Tensor& x, const Tensor& packed, const MaybeTensor& bias,
                              const NextWeight& next, const Tensor& out) {
  int64_t outputs = out.size(1);
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kBFloat16 &&
              packed.scalar_type() == at::kBFloat16 &&
              (!bias || bias->scalar_type() == at::kBFloat16), "bfloat16 matrices expected");
  TORCH_CHECK(!bias || (bias->numel() == outputs && bias->is_contiguous()), "bias does not fit");
  auto weight = packed_weight<Bfloat16Format>(packed, outputs, x.size(1));
  Tensor rows = x.contiguous();
  if (x.size(1) % Bfloat16Format::STEP) rows = at::constant_pad_nd(rows, {0, 1});
  const bf16* add = bias ? data<bf16>(*bias) : nullptr;
  bf16* result = data<bf16>(out);
  multiply<Bfloat16Format>(data<bf16>(rows), rows.size(1), rows.size(0), weight, next,
                    [&](int64_t row, int64_t channel, int count, const float* sums) {
                      bf16* to = result + row * outputs + channel;
                      each_vector(count, [&](int64_t c, auto part) {
                        Vec value = load(sums + c);
                        if (add) value += load_some(add + channel + c, part);
                        store_some(to + c, value, part);
                      });
                    });
}

inline Tensor packed_linear(const Tensor& x, const Tensor& packed, int64_t outputs,
                            const MaybeTensor& bias) {
  Tensor out = at::empty({x.size(0), outputs}, x.options());
  packed_linear_out(x, packed, bias, {}, out);
  return out;
}

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

// out [M, outputs] = x [M, inputs], rounded to bytes or words with a scale per row, times the weight
// with a scale per output channel, plus bias
template <typename P, typename T>
void int8_product(const Tensor& x, const Int8Weight& by, const NextWeight& next,
                  const Tensor& out) {
  Rows from(x);
  int64_t outputs = out.size(1);
  auto weight = packed_weight<P>(by.packed, outputs, from.size);
  int64_t stride = weight.steps * P::STEP;
  std::vector<typename P::Row> rounded(from.outer * stride);
  std::vector<float> row_scales(from.outer);
  auto [numbers, result] = std::pair{data<T>(x), data<T>(out)};
  auto [shifts, scales] = std::pair{data<int32_t>(by.sums), data<float>(by.scales)};
  const T* add = by.bias ? data<T>(*by.bias) : nullptr;
  each_row(from.outer, from.size, [&](int64_t row) {
    row_scales[row] = round_row<P>(numbers + from[row], from.size, rounded.data() + row * stride);
  });
  multiply<P>(rounded.data(), stride, from.outer, weight, next,
              [&](int64_t row, int64_t channel, int count, const int32_t* products) {
                T* to = result + row * outputs + channel;
                each_vector(count, [&](int64_t c, auto part) {
                  IntVec sum;
                  std::memcpy(&sum, products + c, sizeof sum);
                  if (P::SHIFT) sum -= P::SHIFT * load_ints(shifts + channel + c, part);
                  Vec value = __builtin_convertvector(sum, Vec) * row_scales[row];
                  value *= load_some(scales + channel + c, part);
                  if (add) value += load_some(add + channel + c, part);
                  store_some(to + c, value, part);
                });
              });
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
