// What the decoder is made of: memory that stays from step to step, norms, and linear layers however
// their weights lie.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/custom_class.h>

#include <string_view>
#include <utility>

#include "linear.h"
#include "row_kernels.h"

namespace millstream {

// A tensor that is made anew only if what is asked of it is larger than ever before.
class Buffer {
 public:
  // [rows, columns], valid until the next call; the content is whatever was there.
  const Tensor& matrix(int64_t rows, int64_t columns, const Tensor& like) {
    bool is_alike = memory_.defined() && memory_.scalar_type() == like.scalar_type();
    if (is_alike && view_.size(0) == rows && view_.size(1) == columns) return view_;
    if (!is_alike || memory_.numel() < rows * columns)
      memory_ = at::empty({rows * columns}, like.options());
    return view_ = memory_.narrow(0, 0, rows * columns).view({rows, columns});
  }

 private:
  Tensor memory_, view_;
};

struct NormLayer : torch::CustomClassHolder, Norm {
  NormLayer(Tensor by, double epsilon, bool has_offset)
      : Norm{std::move(by), epsilon, has_offset} {}
};

// A linear layer whose weight lies as whoever multiplies it wants it: packed for the products in
// linear.h (int8 with sums and scales), packed by oneDNN, or plain.
class LinearLayer : public torch::CustomClassHolder {
 public:
  LinearLayer(Tensor weight, int64_t outputs, MaybeTensor bias, MaybeTensor sums,
              MaybeTensor scales)
      : weight_(std::move(weight)), outputs_(outputs), bias_(std::move(bias)),
        sums_(std::move(sums)), scales_(std::move(scales)) {
    TORCH_CHECK(is_packed() || weight_.is_mkldnn() || weight_.dim() == 2, "not a linear layer");
    TORCH_CHECK(weight_.scalar_type() != at::kChar || (sums_ && scales_), "int8 without scales");
  }

  // x [T, inputs] -> [T, outputs], in `buffer` or in a tensor of its own. next, later: what is read
  // after this.
  Tensor run(const Tensor& x, Buffer& buffer, const LinearLayer* next, Later& later) const {
    if (weight_.is_mkldnn()) return multiply_by_onednn(x);
    if (!is_packed()) return at::linear(x, weight_, bias_);
    const Tensor& out = buffer.matrix(x.size(0), outputs_, x);
    Following after = next && next->is_packed() ? following(next->weight_) : Following{};
    after.later = &later;
    if (sums_)
      int8_linear_out(x, {weight_, *sums_, *scales_, bias_}, after, out);
    else
      packed_linear_out(x, weight_, bias_, after, out);
    return out;
  }

 private:
  bool is_packed() const { return !weight_.is_mkldnn() && weight_.dim() == 4; }

  Tensor multiply_by_onednn(const Tensor& x) const {
    using Scalars = c10::List<std::optional<at::Scalar>>;
    using Product = Tensor(const Tensor&, const Tensor&, const MaybeTensor&, std::string_view,
                           Scalars, std::optional<std::string_view>);
    static auto product = c10::Dispatcher::singleton()
                              .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                              .typed<Product>();
    return product.call(x, weight_, bias_, "none", Scalars(), "");
  }

  Tensor weight_;
  int64_t outputs_;
  MaybeTensor bias_, sums_, scales_;
};

}  // namespace millstream
