// Checks of the torch shells.  They repeat only what protects memory: Python
// has already spoken about shapes and dtypes in full sentences.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace perception3d {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_kind(const char *op, const char *name, const Tensor &tensor, ScalarType dtype,
                       int64_t rank) {
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, op, ": ", name, " must be ",
                  torch::headeronly::toString(dtype), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " dimensions, got ",
                  tensor.dim());
}

// A tensor of the given dtype and rank with rows next to each other in memory.
inline void check_layout(const char *op, const char *name, const Tensor &tensor, ScalarType dtype,
                         int64_t rank) {
  check_kind(op, name, tensor, dtype, rank);
  STD_TORCH_CHECK(tensor.is_contiguous(), op, ": ", name, " must be contiguous");
}

inline void check_cpu(const char *op, const char *name, const Tensor &tensor, ScalarType dtype,
                      int64_t rank) {
  STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " must lie on the CPU");
  check_layout(op, name, tensor, dtype, rank);
}

// float32 or float64: the dtypes that kernels of real numbers are built for.
inline void check_floating(const char *op, const char *name, const Tensor &tensor) {
  const ScalarType dtype = tensor.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, ": ", name,
                  " must be float32 or float64, got ", torch::headeronly::toString(dtype));
}

inline void check_size(const char *op, const char *name, const Tensor &tensor, int64_t dim,
                       int64_t size) {
  STD_TORCH_CHECK(tensor.size(dim) == size, op, ": ", name, " must have size ", size,
                  " in dimension ", dim, ", got ", tensor.size(dim));
}

}  // namespace perception3d
