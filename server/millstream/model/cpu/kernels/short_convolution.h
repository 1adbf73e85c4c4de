// The causal depthwise convolution of layers that carry a state: a few of a sequence's inputs.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "elementwise.h"
#include "sequences.h"

namespace millstream {

class ShortConvolution {
  static constexpr int64_t CHANNELS = 512;  // that a unit of work has

 public:
  ShortConvolution(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                   const Tensor& states, const Sequences& sequences, bool silu, const Tensor& out)
      : x_(x), weight_(weight), bias_(bias), states_(states), sequences_(sequences), silu_(silu),
        out_(out), channels_(x.size(1)), width_(weight.size(1)), kept_(states.size(2)) {
    TORCH_CHECK(weight.size(0) == channels_ && states.size(1) == channels_ &&
                (!bias || bias->numel() == channels_), "weight, bias or states do not fit the input");
    TORCH_CHECK(width_ > 0 && kept_ >= width_ - 1, "the states keep too few inputs");
    TORCH_CHECK(weight.is_contiguous() && states.is_contiguous() && (!bias || bias->is_contiguous()),
                "weight, bias and states must be contiguous");
    TORCH_CHECK(x.stride(1) == 1 || channels_ == 1, "last dimension must be contiguous");
  }

  template <typename T>
  void run() {
    sequences_.each((channels_ + CHANNELS - 1) / CHANNELS, [&](int64_t sequence, int64_t part) {
      int64_t begin = part * CHANNELS;
      some_channels<T>(sequence, begin, std::min(channels_ - begin, CHANNELS));
    });
  }

 private:
  template <typename T>
  void some_channels(int64_t sequence, int64_t begin, int64_t count) {
    std::vector<T> weight(width_ * CHANNELS);
    turned(data<T>(weight_) + begin * width_, count, width_, weight.data());
    std::vector<T> before(kept_ * CHANNELS, T{});
    int64_t state = channels_ * kept_, source = sequences_.source(sequence);
    if (source != NO_STATE)
      turned(data<T>(states_) + source * state + begin * kept_, count, kept_, before.data());
    int64_t length = sequences_.length(sequence), first = sequences_.first(sequence);
    auto input = [&](int64_t row) -> const T* {  // of the sequence; negative ones came before
      if (row < 0) return before.data() + (kept_ + row) * CHANNELS;
      return data<T>(x_) + (first + row) * x_.stride(0) + begin;
    };
    const T* bias = bias_ ? data<T>(*bias_) + begin : nullptr;
    std::vector<const T*> inputs(std::max(width_, kept_));
    for (int64_t row = 0; row < length; row++) {
      for (int64_t k = 0; k < width_; k++) inputs[k] = input(row + 1 - width_ + k);
      T* to = data<T>(out_) + (first + row) * channels_ + begin;
      each_vector(count, [&](int64_t i, auto some) {
        Vec total = {};
        for (int64_t k = 0; k < width_; k++)
          total += load_some(inputs[k] + i, some) * load_some(&weight[k * CHANNELS + i], some);
        if (bias) total += load_some(bias + i, some);
        total = rounded<T>(total);
        store_some(to + i, silu_ ? silu(total) : total, some);
      });
    }
    for (int64_t k = 0; k < kept_; k++) inputs[k] = input(length - kept_ + k);
    T* after = data<T>(states_) + sequences_.target(sequence) * state + begin * kept_;
    by_size(kept_, [&](auto size) {
      for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < size; k++) after[i * size + k] = inputs[k][i];
    });
  }

  // from [count, size] -> to [size, CHANNELS]
  template <typename T, typename U>
  static void turned(const T* from, int64_t count, int64_t size, U* to) {
    by_size(size, [&](auto size) {
      for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < size; k++) to[k * CHANNELS + i] = U(from[i * size + k]);
    });
  }

  // f(size), with a constant where there are often so few: the compiler then writes better loops.
  template <typename F>
  static void by_size(int64_t size, F&& f) {
    if (size == 3) return f(std::integral_constant<int64_t, 3>());
    if (size == 4) return f(std::integral_constant<int64_t, 4>());
    f(size);
  }

  Tensor x_, weight_;
  MaybeTensor bias_;
  Tensor states_;
  const Sequences& sequences_;
  bool silu_;
  Tensor out_;
  int64_t channels_, width_, kept_;
};

inline Tensor short_convolution(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                                const Tensor& states, const Tensor& sources,
                                const Tensor& targets, const Tensor& firsts, bool silu) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && states.dim() == 3,
              "wrong number of dimensions");
  Tensor out = at::empty(x.sizes(), x.options());
  Sequences sequences(sources, targets, firsts, x.size(0), states.size(0));
  ShortConvolution work(x, weight, bias, states, sequences, silu, out);
  by_dtype({x, weight, states, bias.value_or(x)}, [&](auto t) { work.run<decltype(t)>(); });
  return out;
}

}  // namespace millstream
