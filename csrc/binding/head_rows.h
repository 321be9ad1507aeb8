// Tensors (rows, heads, width) that kernels read in place.
#pragma once

#include <cstdint>

#include "binding/storage_types.h"
#include "common/check.h"
#include "common/head_rows.h"

namespace perception3d {

// A (rows, heads, width) tensor whose last axis has no gaps.
inline void check_head_rows(const char* op, const char* name, const Tensor& tensor,
                            const Tensor& like) {
  STD_TORCH_CHECK(tensor.dim() == 3, op, ": ", name, " must have 3 dimensions, got ", tensor.dim());
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", name, " must be ",
                  torch::headeronly::toString(like.scalar_type()), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": ", name,
                  " must lie on the device of query");
  check_size(op, name, tensor, 0, like.size(0));
  check_size(op, name, tensor, 1, like.size(1));
  STD_TORCH_CHECK(tensor.size(2) <= 1 || tensor.numel() == 0 || tensor.stride(2) == 1, op, ": ",
                  name, " must have stride 1 in its last dimension, got ", tensor.stride(2));
}

// Part of a contiguous (rows, columns) tensor: `heads` times `width` columns from `column` on.
template <typename Scalar>
WritableHeadRows<Scalar> columns_of(const Tensor& tensor, int64_t column, int64_t width) {
  return {mutable_data_of<Scalar>(tensor) + column, tensor.size(1), width};
}

template <typename Scalar>
HeadRows<Scalar> head_rows(const Tensor& tensor) {
  return {data_of<Scalar>(tensor), tensor.stride(0), tensor.stride(1)};
}

}  // namespace perception3d
