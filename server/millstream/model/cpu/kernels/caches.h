// What attention kernels are given: a query and two paged caches that fit it.
#pragma once

#include "attention.h"
#include "tensors.h"

namespace millstream {

inline Shape shape_of(const Tensor& query, const Tensor& keys, const Tensor& values, double scale,
                      std::optional<int64_t> window, std::optional<double> softcap,
                      const MaybeTensor& sinks) {
  TORCH_CHECK(query.dim() == 3 && keys.dim() == 4 && values.dim() == 4,
              "wrong number of dimensions");
  Shape shape{query.size(1),  keys.size(2), query.size(2), values.size(3),
              keys.size(1), float(scale), float(softcap.value_or(0))};
  TORCH_CHECK(keys.is_contiguous() && values.is_contiguous(), "caches must be contiguous");
  TORCH_CHECK(keys.size(3) == shape.dim &&
              keys.sizes().slice(0, 3) == values.sizes().slice(0, 3) && shape.kv_heads > 0,
              "caches do not fit the query");
  TORCH_CHECK(shape.heads % shape.kv_heads == 0, "query heads must be a multiple of key heads");
  TORCH_CHECK(scale > 0, "a scale is positive");
  TORCH_CHECK(!window || *window > 0, "a window holds the token itself at least");
  TORCH_CHECK(!sinks || sinks->numel() == shape.heads, "one sink per query head");
  return shape;
}

inline void check_result(const Tensor& query, const Shape& shape, const Tensor& out) {
  TORCH_CHECK(query.is_contiguous() && out.is_contiguous(), "query and result must be contiguous");
  TORCH_CHECK(out.dim() == 3 && out.size(0) == query.size(0) && out.size(1) == shape.heads &&
              out.size(2) == shape.value_dim && out.scalar_type() == query.scalar_type(),
              "the result does not fit the query");
}

}  // namespace millstream
