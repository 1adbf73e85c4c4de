// Products of rows and weights that were laid out once: blocks of 64 output channels, and of each
// channel as many inputs side by side as an instruction multiplies: two bfloat16 or four bytes.
//
// Decoding is bound by memory: a block is streamed once, and meets all rows on its way. With many
// rows, a part of a block stays in the innermost cache until all of them have met it. A row's
// products are added up in the order of its inputs in any case: they depend on that row only.
#pragma once

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "elementwise.h"
#include "tensors.h"

namespace millstream {

constexpr int CHANNELS = 64;  // output channels of a block
constexpr int CHANNEL_VECS = CHANNELS / WIDTH;
constexpr int LINEAR_ROWS = WIDTH == 16 ? 6 : 1;
constexpr int ROWS_OF_SUMS = 48;
constexpr int STEPS_AT_ONCE = 64;
constexpr int64_t LARGEST_BLOCK = 1 << 19;  // bytes that stay in a core's cache

// Matrix units, where there are some, are what torch's own library is written for.
#if defined(__AMX_BF16__) || defined(__AMX_INT8__)
constexpr bool HAS_MATRIX_UNITS = true;
#else
constexpr bool HAS_MATRIX_UNITS = false;
#endif

// What is multiplied: rows of Row and weights, added up as Sum; STEP inputs at a time.
struct Bfloats {
  using Row = bf16;
  using Weight = bf16;
  using Sum = Vec;
  using Scalar = float;
  static constexpr int STEP = 2;
#if defined(__AVX512BF16__)
  static constexpr bool IS_FAST = !HAS_MATRIX_UNITS;
  static INLINE Sum multiply_add(Sum acc, const bf16* one, const bf16* each) {
    int32_t pair;
    std::memcpy(&pair, one, sizeof pair);
    return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(pair),
                                 (__m512bh)_mm512_loadu_si512(each));
  }
#else
  static constexpr bool IS_FAST = false;
  static INLINE Sum multiply_add(Sum acc, const bf16* one, const bf16* each) {
    for (int i = 0; i < WIDTH; i++)
      for (int k = 0; k < STEP; k++) acc[i] += to_float(one[k]) * to_float(each[i * STEP + k]);
    return acc;
  }
#endif
};

// Rows are unsigned: byte instructions want that on one side.
struct Bytes {
  using Row = uint8_t;
  using Weight = int8_t;
  using Sum = IntVec;
  using Scalar = int32_t;
  static constexpr int STEP = 4;
#if defined(__AVX512VNNI__)
  static constexpr bool IS_FAST = !HAS_MATRIX_UNITS;
  static INLINE Sum multiply_add(Sum acc, const uint8_t* one, const int8_t* each) {
    int32_t four;
    std::memcpy(&four, one, sizeof four);
    return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(four),
                                       _mm512_loadu_si512(each));
  }
#else
  static constexpr bool IS_FAST = false;
  static INLINE Sum multiply_add(Sum acc, const uint8_t* one, const int8_t* each) {
    for (int i = 0; i < WIDTH; i++)
      for (int k = 0; k < STEP; k++) acc[i] += int32_t(one[k]) * each[i * STEP + k];
    return acc;
  }
#endif
};

// sums [ROWS, CHANNELS] += ROWS rows times `steps` steps of a block. ahead: what is asked for
// meanwhile, step by step, for later.
template <typename P, int ROWS>
void multiply_rows(const typename P::Row* rows, int64_t stride, const typename P::Weight* block,
                   int64_t steps, const typename P::Weight* ahead, typename P::Scalar* sums) {
  typename P::Sum acc[ROWS][CHANNEL_VECS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < CHANNEL_VECS; v++)
      acc[r][v] = *reinterpret_cast<typename P::Sum*>(sums + r * CHANNELS + v * WIDTH);
  for (int64_t k = 0; k < steps; k++) {
    if (ahead)
      for (int i = 0; i < CHANNELS * 4; i += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(ahead + k * CHANNELS * P::STEP) + i, 0, 2);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
      for (int v = 0; v < CHANNEL_VECS; v++)
        acc[r][v] = P::multiply_add(acc[r][v], rows + r * stride + k * P::STEP,
                                    block + (k * CHANNELS + v * WIDTH) * P::STEP);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < CHANNEL_VECS; v++)
      *reinterpret_cast<typename P::Sum*>(sums + r * CHANNELS + v * WIDTH) = acc[r][v];
}

template <typename P>
void multiply_some(int count, const typename P::Row* rows, int64_t stride,
                   const typename P::Weight* block, int64_t steps,
                   const typename P::Weight* ahead, typename P::Scalar* sums) {
  switch (count) {
    case 1: return multiply_rows<P, 1>(rows, stride, block, steps, ahead, sums);
    case 2: return multiply_rows<P, 2>(rows, stride, block, steps, ahead, sums);
    case 3: return multiply_rows<P, 3>(rows, stride, block, steps, ahead, sums);
    case 4: return multiply_rows<P, 4>(rows, stride, block, steps, ahead, sums);
    case 5: return multiply_rows<P, 5>(rows, stride, block, steps, ahead, sums);
    default: return multiply_rows<P, 6>(rows, stride, block, steps, ahead, sums);
  }
}

// Weights as they are read: [blocks, steps, CHANNELS, STEP].
template <typename P>
struct PackedWeight {
  const typename P::Weight* start;
  int64_t outputs, steps;

  int64_t blocks() const { return padded(outputs, CHANNELS) / CHANNELS; }
  const typename P::Weight* block(int64_t n) const { return start + n * steps * CHANNELS * P::STEP; }
};

// Calls finish(row, first channel, number of channels, sums) for every row and block of channels.
// rows: of `steps` steps each, `stride` apart.
template <typename P, typename F>
void multiply(const typename P::Row* rows, int64_t stride, int64_t count,
              const PackedWeight<P>& weight, F&& finish) {
  each_unit(weight.blocks(), [&](int64_t block, int) {
    alignas(64) typename P::Scalar sums[ROWS_OF_SUMS * CHANNELS];
    for (int64_t first = 0; first < count; first += ROWS_OF_SUMS) {
      int64_t some = std::min<int64_t>(ROWS_OF_SUMS, count - first);
      int64_t part = weight.steps * CHANNELS * 4 > LARGEST_BLOCK ? STEPS_AT_ONCE : weight.steps;
      std::fill(sums, sums + some * CHANNELS, 0);
      for (int64_t k = 0; k < weight.steps; k += part)
        for (int64_t r = 0; r < some; r += LINEAR_ROWS)
          multiply_some<P>(std::min<int64_t>(LINEAR_ROWS, some - r),
                           rows + (first + r) * stride + k * P::STEP, stride,
                           weight.block(block) + k * CHANNELS * P::STEP,
                           std::min(part, weight.steps - k),
                           // The next part, while the last rows meet this one.
                           part < weight.steps && r + LINEAR_ROWS >= some
                               ? weight.block(block) + (k + part) * CHANNELS * P::STEP
                               : nullptr,
                           sums + r * CHANNELS);
      int64_t channel = block * CHANNELS;
      int channels = std::min<int64_t>(CHANNELS, weight.outputs - channel);
      for (int64_t r = 0; r < some; r++) finish(first + r, channel, channels, sums + r * CHANNELS);
    }
  });
}

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

// weight [outputs, inputs], bfloat16 or int8 -> [blocks, steps, CHANNELS, STEP]
inline Tensor pack_weight(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), "a contiguous matrix expected");
  int64_t outputs = weight.size(0), inputs = weight.size(1);
  int64_t blocks = padded(outputs, CHANNELS) / CHANNELS;
  auto made = [&](int64_t step) {
    return at::zeros({blocks, padded(inputs, step) / step, CHANNELS, step}, weight.options());
  };
  if (weight.scalar_type() == at::kBFloat16) {
    Tensor out = made(Bfloats::STEP);
    pack<Bfloats>(data<bf16>(weight), outputs, inputs, out.size(1), data<bf16>(out));
    return out;
  }
  TORCH_CHECK(weight.scalar_type() == at::kChar, "dtype not supported: ", weight.scalar_type());
  Tensor out = made(Bytes::STEP);
  pack<Bytes>(data<int8_t>(weight), outputs, inputs, out.size(1), data<int8_t>(out));
  return out;
}

template <typename P>
PackedWeight<P> packed_weight(const Tensor& packed, int64_t outputs, int64_t inputs) {
  TORCH_CHECK(packed.dim() == 4 && packed.is_contiguous() && packed.size(2) == CHANNELS &&
              packed.size(3) == P::STEP, "not a packed weight");
  TORCH_CHECK(outputs > 0 && padded(outputs, CHANNELS) / CHANNELS == packed.size(0) &&
              padded(inputs, P::STEP) / P::STEP == packed.size(1), "rows and weight do not fit");
  return {data<typename P::Weight>(packed), outputs, packed.size(1)};
}

// x [M, inputs] times a packed bfloat16 weight, plus bias [outputs]: [M, outputs]
inline Tensor packed_linear(const Tensor& x, const Tensor& packed, int64_t outputs,
                            const MaybeTensor& bias) {
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kBFloat16 &&
              packed.scalar_type() == at::kBFloat16 &&
              (!bias || bias->scalar_type() == at::kBFloat16), "bfloat16 matrices expected");
  TORCH_CHECK(!bias || (bias->numel() == outputs && bias->is_contiguous()), "bias does not fit");
  auto weight = packed_weight<Bfloats>(packed, outputs, x.size(1));
  Tensor rows = x.contiguous();
  if (x.size(1) % Bfloats::STEP) rows = at::constant_pad_nd(rows, {0, 1});
  Tensor out = at::empty({x.size(0), outputs}, x.options());
  const bf16* add = bias ? data<bf16>(*bias) : nullptr;
  multiply<Bfloats>(data<bf16>(rows), rows.size(1), rows.size(0), weight,
                    [&](int64_t row, int64_t channel, int count, const float* sums) {
                      bf16* to = data<bf16>(out) + row * outputs + channel;
                      each_vector(count, [&](int64_t c, auto part) {
                        Vec value = load(sums + c);
                        if (add) value += load_some(add + channel + c, part);
                        store_some(to + c, value, part);
                      });
                    });
  return out;
}

INLINE IntVec load_ints(const int32_t* from, int count) {
  IntVec out = {};
  std::memcpy(&out, from, count * sizeof(int32_t));
  return out;
}

constexpr int SHIFT = 128;  // from signed to unsigned bytes

// A row as shifted bytes; returns its scale, which is NaN if a number in it is not finite. Rounds to
// the nearest, ties to even.
template <typename T>
float round_row(const T* row, int64_t size, uint8_t* to) {
  Vec most = {}, zeros = {};
  each_vector(size, [&](int64_t i, auto count) {
    Vec x = load_some(row + i, count);
    zeros += x * 0.0f;
    most = larger(most, x < 0.0f ? -x : x);
  });
  float largest = 0;
  for (int k = 0; k < WIDTH; k++) largest = std::max(largest, most[k]);
  float scale = std::max(largest * (1.0f / 127), 1e-7f) + sum(zeros);
  const float magic = 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
  each_vector(size, [&](int64_t i, auto count) {
    typedef uint8_t ByteVec __attribute__((vector_size(WIDTH)));
    Vec x = load_some(row + i, count) / scale + magic;
    auto bytes = __builtin_convertvector((IntVec)x - (IntVec)splat(magic) + SHIFT, ByteVec);
    std::memcpy(to + i, &bytes, count);
  });
  return scale;
}

// x [M, inputs], rounded to bytes with a scale per row, times a packed int8 weight with a scale per
// output channel, plus bias: [M, outputs]. sums [outputs]: of each channel's weights.
inline Tensor int8_linear(const Tensor& x, const Tensor& packed, const Tensor& sums,
                          const Tensor& scales, const MaybeTensor& bias) {
  Rows from(x);
  int64_t outputs = scales.numel();
  TORCH_CHECK(x.dim() == 2 && packed.scalar_type() == at::kChar &&
              sums.scalar_type() == at::kInt && scales.scalar_type() == at::kFloat,
              "an int8 weight expected");
  TORCH_CHECK(sums.numel() == outputs && sums.is_contiguous() && scales.is_contiguous() &&
              (!bias || (bias->numel() == outputs && bias->is_contiguous() &&
                         bias->scalar_type() == x.scalar_type())), "sums, scales or bias do not fit");
  auto weight = packed_weight<Bytes>(packed, outputs, from.size);
  Tensor out = at::empty({from.outer, outputs}, x.options());
  int64_t stride = weight.steps * Bytes::STEP;
  std::vector<uint8_t> bytes(from.outer * stride);
  std::vector<float> row_scales(from.outer);
  by_dtype({x}, [&](auto t) {
    using T = decltype(t);
    each_row(from.outer, from.size, [&](int64_t row) {
      row_scales[row] = round_row(data<T>(x) + from[row], from.size, bytes.data() + row * stride);
    });
    multiply<Bytes>(bytes.data(), stride, from.outer, weight,
                    [&](int64_t row, int64_t channel, int count, const int32_t* products) {
                      T* to = data<T>(out) + row * outputs + channel;
                      each_vector(count, [&](int64_t c, auto part) {
                        IntVec sum;
                        std::memcpy(&sum, products + c, sizeof sum);
                        sum -= SHIFT * load_ints(data<int32_t>(sums) + channel + c, part);
                        Vec value = __builtin_convertvector(sum, Vec) * row_scales[row];
                        value *= load_some(data<float>(scales) + channel + c, part);
                        if (bias) value += load_some(data<T>(*bias) + channel + c, part);
                        store_some(to + c, value, part);
                      });
                    });
  });
  return out;
}

}  // namespace millstream
