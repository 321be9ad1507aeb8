// Tensors as sequences laid end to end; the checks that need no look at contents.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "binding/storage_types.h"
#include "common/check.h"
#include "common/scan_layout.h"

namespace perception3d {

// A (rows, columns) tensor on the device of `like` whose rows have no gaps inside.
inline void check_rows(const char* op, const char* name, const Tensor& tensor, const Tensor& like,
                       int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(tensor.dim() == 2, op, ": ", name, " must have 2 dimensions, got ", tensor.dim());
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", name, " must be ",
                  torch::headeronly::toString(like.scalar_type()), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": ", name,
                  " must lie on the device of the others");
  check_size(op, name, tensor, 0, rows);
  check_size(op, name, tensor, 1, columns);
  STD_TORCH_CHECK(columns <= 1 || rows == 0 || tensor.stride(1) == 1, op, ": ", name,
                  " must have stride 1 in its last dimension, got ", tensor.stride(1));
}

// A contiguous tensor of a given dtype on the device of `like`.
inline void check_dense(const char* op, const char* name, const Tensor& tensor, const Tensor& like,
                        ScalarType dtype, int64_t rank) {
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": ", name,
                  " must lie on the device of the others");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype && tensor.dim() == rank, op, ": ", name,
                  " must have ", rank, " dimensions and be ", torch::headeronly::toString(dtype));
  STD_TORCH_CHECK(tensor.is_contiguous(), op, ": ", name, " must be contiguous");
}

// The dtype of parameters and states of rows of a given dtype.
inline ScalarType compute_type(const Tensor& rows) {
  return rows.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename Scalar>
Rows<const Scalar> rows_of(const Tensor& tensor) {
  return {data_of<Scalar>(tensor), tensor.stride(0)};
}

template <typename Scalar>
Rows<const Scalar> rows_of(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? rows_of<Scalar>(*tensor) : Rows<const Scalar>{nullptr, 0};
}

inline SequenceLayout sequence_layout(const char* op, const Tensor& rows, const Tensor& offsets,
                                      const std::optional<Tensor>& order, bool reverse) {
  check_dense(op, "offsets", offsets, rows, ScalarType::Long, 1);
  STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
  if (order.has_value()) {
    check_dense(op, "order", *order, rows, ScalarType::Long, 1);
    check_size(op, "order", *order, 0, rows.size(0));
  }
  return {rows.size(0), offsets.size(0) - 1, offsets.const_data_ptr<int64_t>(),
          order.has_value() ? order->const_data_ptr<int64_t>() : nullptr, reverse};
}

}  // namespace perception3d
