// What the operators need to read torch tensors: dtype dispatch, strided rows, threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "pool.h"
#include "simd.h"

namespace millstream {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

constexpr int64_t GRAIN = 8192;  // elements that are worth a thread

template <typename T>
T* data(const Tensor& tensor) { return static_cast<T*>(tensor.data_ptr()); }

// Calls f(T{}) with the element type of the tensors, which must share one.
template <typename F>
void by_dtype(std::initializer_list<Tensor> tensors, F&& f) {
  auto dtype = tensors.begin()->scalar_type();
  for (const Tensor& tensor : tensors)
    TORCH_CHECK(tensor.scalar_type() == dtype, "dtypes differ: ", dtype, " and ",
                tensor.scalar_type());
  if (dtype == at::kBFloat16) return f(bf16{});
  TORCH_CHECK(dtype == at::kFloat, "dtype not supported: ", dtype);
  f(float{});
}

// Element i of an int32 or int64 vector or matrix with contiguous rows.
class Indices {
 public:
  explicit Indices(const Tensor& tensor) : is_wide_(tensor.scalar_type() == at::kLong) {
    TORCH_CHECK(is_wide_ || tensor.scalar_type() == at::kInt, "indices must be int32 or int64");
    TORCH_CHECK(tensor.is_contiguous(), "indices must be contiguous");
    start_ = tensor.data_ptr();
  }
  int64_t operator[](int64_t i) const {
    if (is_wide_) return static_cast<const int64_t*>(start_)[i];
    return static_cast<const int32_t*>(start_)[i];
  }

 private:
  bool is_wide_;
  const void* start_;
};

// Rows of a tensor [rows, inner, size] or [rows, size] whose last dimension is contiguous.
struct Rows {
  explicit Rows(const Tensor& tensor) {
    TORCH_CHECK(tensor.dim() == 2 || tensor.dim() == 3, "2 or 3 dimensions expected");
    bool is_nested = tensor.dim() == 3;
    size = tensor.size(-1);
    inner = is_nested ? tensor.size(1) : 1;
    outer = tensor.size(0);
    TORCH_CHECK(tensor.stride(-1) == 1 || size == 1, "last dimension must be contiguous");
    outer_stride = tensor.stride(0);
    inner_stride = is_nested ? tensor.stride(1) : 0;
  }
  int64_t count() const { return outer * inner; }
  int64_t operator[](int64_t row) const {
    return row / inner * outer_stride + row % inner * inner_stride;
  }
  int64_t size, inner, outer, outer_stride, inner_stride;
};

inline int64_t padded(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

template <typename F>
void each_row(int64_t rows, int64_t size, F&& f) {
  // Several rows at a time: a unit should be worth the way to another core.
  int64_t some = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, size));
  each_unit((rows + some - 1) / some, [&](int64_t unit, int) {
    for (int64_t row = unit * some; row < std::min(rows, (unit + 1) * some); row++) f(row);
  });
}

}  // namespace millstream
