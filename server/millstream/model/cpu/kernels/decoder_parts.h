// What the decoder is made of: memory that stays from step to step, norms, linear layers however
// their weights lie, and which rows a step has and its last layer has to finish.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/custom_class.h>

#include <string_view>
#include <utility>
#include <vector>

#include "grouped.h"
#include "int8.h"
#include "linear.h"
#include "row_kernels.h"
#include "tensors.h"

namespace millstream {

// oneDNN compiles a product for each number of rows that it meets. So there are few of these.
constexpr int64_t ONEDNN_ROWS = 16;

// A tensor that is made anew only if what is asked of it is larger than ever before.
class Buffer {
 public:
  // [rows, columns], valid until the next call; the content is whatever was there. Behind the last
  // row there is memory up to a multiple of ONEDNN_ROWS.
  const Tensor& matrix(int64_t rows, int64_t columns, const Tensor& like) {
    bool is_alike = memory_.defined() && memory_.scalar_type() == like.scalar_type();
    if (is_alike && view_.size(0) == rows && view_.size(1) == columns) return view_;
    int64_t room = padded(rows, ONEDNN_ROWS) * columns;
    if (!is_alike || memory_.numel() < room) memory_ = at::zeros({room}, like.options());
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
// linear.h (int8 with sums and scales) or in grouped.h (with scales), packed by oneDNN, or plain.
class LinearLayer : public torch::CustomClassHolder {
 public:
  LinearLayer(Tensor weight, int64_t outputs, MaybeTensor bias, MaybeTensor sums,
              MaybeTensor scales)
      : weight_(std::move(weight)), outputs_(outputs), bias_(std::move(bias)),
        sums_(std::move(sums)), scales_(std::move(scales)) {
    TORCH_CHECK(is_packed() || weight_.is_mkldnn() || weight_.dim() == 2, "not a linear layer");
    TORCH_CHECK(weight_.scalar_type() != at::kChar || is_grouped() || (sums_ && scales_), "int8 without scales");
    TORCH_CHECK(!is_grouped() || scales_, "groups without scales");
  }

  // x [T, inputs] -> [T, outputs], in `buffer` or in a tensor of its own. next, queue: what is read
  // after this.
  Tensor run(const Tensor& x, Buffer& buffer, const LinearLayer* next, PrefetchQueue& queue) const {
    if (weight_.is_mkldnn()) return multiply_by_onednn(x);
    if (!is_packed()) return at::linear(x, weight_, bias_);
    const Tensor& out = buffer.matrix(x.size(0), outputs_, x);
    NextWeight after = next && next->is_packed() ? next_weight(next->weight_) : NextWeight{};
    after.queue = &queue;
    if (is_grouped())
      grouped_linear_out(x, {weight_, *scales_, bias_}, after, out);
    else if (sums_)
      int8_linear_out(x, {weight_, *sums_, *scales_, bias_}, after, out);
    else
      packed_linear_out(x, weight_, bias_, after, out);
    return out;
  }

 private:
  bool is_grouped() const { return !weight_.is_mkldnn() && weight_.dim() == 3; }
  bool is_packed() const { return is_grouped() || (!weight_.is_mkldnn() && weight_.dim() == 4); }

  Tensor multiply_by_onednn(const Tensor& x) const {
    using Scalars = c10::List<std::optional<at::Scalar>>;
    using Product = Tensor(const Tensor&, const Tensor&, const MaybeTensor&, std::string_view,
                           Scalars, std::optional<std::string_view>);
    static auto product = c10::Dispatcher::singleton()
                              .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                              .typed<Product>();
    int64_t rows = x.size(0), more = padded(rows, ONEDNN_ROWS);
    bool has_room = x.is_contiguous() &&
                    x.storage_offset() + more * x.size(1) <=
                        int64_t(x.storage().nbytes() / x.element_size());
    if (rows <= ONEDNN_ROWS || rows == more || !has_room)
      return product.call(x, weight_, bias_, "none", Scalars(), "");
    Tensor padded_rows = x.as_strided({more, x.size(1)}, {x.size(1), 1});
    return product.call(padded_rows, weight_, bias_, "none", Scalars(), "").narrow(0, 0, rows);
  }

  Tensor weight_;
  int64_t outputs_;
  MaybeTensor bias_, sums_, scales_;
};

// First one row of each sequence that decodes, then those of prompt chunks.
struct StepRows {
  Tensor cos, sin, slots;
  MaybeTensor tables, positions;              // of rows that decode
  MaybeTensor chunk_tables, starts, lengths;  // of chunks

  int64_t decodes() const { return positions ? positions->numel() : 0; }
};

// What is left when the keys and values of all rows are in the cache: the rows that decode, and of
// each chunk those from the first one that is wanted to the last.
struct LastRows {
  // wanted [n]: of `step`, whose chunks have `tokens` rows less those that decode.
  LastRows(const StepRows& step, int64_t tokens, const Tensor& wanted) : attended(step) {
    Indices wanted_rows(wanted), starts(*step.starts), lengths(*step.lengths);
    std::vector<int64_t> kept, places(tokens, -1), chunks, new_starts, new_lengths;
    for (int64_t i = 0; i < wanted.numel(); i++) {
      TORCH_CHECK(wanted_rows[i] >= 0 && wanted_rows[i] < tokens, "there is no row ", wanted_rows[i]);
      places[wanted_rows[i]] = 0;
    }
    for (int64_t row = 0; row < step.decodes(); row++) kept.push_back(row);
    for (int64_t chunk = 0, row = step.decodes(); chunk < step.starts->numel(); chunk++) {
      int64_t first = row, end = row + lengths[chunk];
      TORCH_CHECK(end <= tokens, "the chunks have more than ", tokens, " tokens");
      row = end;
      while (first < end && places[first] < 0) first++;
      while (first < end && places[end - 1] < 0) end--;
      if (first == end) continue;
      chunks.push_back(chunk);
      new_starts.push_back(starts[chunk] + first - (row - lengths[chunk]));
      new_lengths.push_back(end - first);
      for (int64_t i = first; i < end; i++) kept.push_back(i);
    }
    for (size_t i = 0; i < kept.size(); i++) places[kept[i]] = i;
    std::vector<int64_t> found(wanted.numel());
    for (size_t i = 0; i < found.size(); i++) found[i] = places[wanted_rows[i]];
    rows = at::tensor(kept, at::kLong);
    this->wanted = at::tensor(found, at::kLong);
    attended.chunk_tables = attended.starts = attended.lengths = std::nullopt;
    if (chunks.empty()) return;
    attended.chunk_tables = step.chunk_tables->index_select(0, at::tensor(chunks, at::kLong));
    attended.starts = at::tensor(new_starts, at::kLong);
    attended.lengths = at::tensor(new_lengths, at::kLong);
  }

  Tensor rows;        // their numbers in the step [r]
  StepRows attended;  // the same as rows of a step; slots and angles are still those of all
  Tensor wanted;      // places in `rows` of what is wanted [n]
};

}  // namespace millstream
