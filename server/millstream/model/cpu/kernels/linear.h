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

}  // namespace millstream
