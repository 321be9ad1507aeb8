// Tensors of linear maps, for the torch shells of the kernels that map rows.
#pragma once

#include <optional>

#include "binding/cpu/cpu_call.h"
#include "binding/storage_types.h"
#include "cpu/linear.h"

namespace perception3d {

// The numbers of a row have to lie side by side.
inline void check_matrix(const CpuCall& call, const char* name, const Tensor& tensor,
                         ScalarType dtype) {
  call.check_view(name, tensor, dtype, 2);
  STD_TORCH_CHECK(tensor.size(1) < 2 || tensor.stride(1) == 1, call.op, ": ", name,
                  " must have rows without gaps");
}

// Of rows of `columns` numbers.
inline void check_map(const CpuCall& call, ScalarType dtype, int64_t columns, const Tensor& weight,
                      const std::optional<Tensor>& bias) {
  call.check_view("weight", weight, dtype, 2);
  check_size(call.op, "weight", weight, 1, columns);
  if (!bias.has_value()) return;
  call.check_input("bias", *bias, dtype, 1);
  check_size(call.op, "bias", *bias, 0, weight.size(0));
}

inline void check_activation(const CpuCall& call, int64_t activation) {
  STD_TORCH_CHECK(activation >= 0 && activation <= static_cast<int64_t>(Activation::kGelu), call.op,
                  ": activation must be 0, 1 or 2, got ", activation);
}

template <typename Number>
RowMatrix<Number> matrix_of(const Tensor& tensor) {
  return {data_of<Number>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0)};
}

template <typename Number>
LinearMap<Number> map_of(const Tensor& weight, const std::optional<Tensor>& bias,
                         Activation activation) {
  return {
      {data_of<Number>(weight), weight.size(0), weight.size(1), weight.stride(0), weight.stride(1)},
      bias.has_value() ? data_of<Number>(*bias) : nullptr,
      activation};
}

// Calls body(pointer to a number of the dtype).
template <typename Body>
void dispatch_number(ScalarType dtype, const Body& body) {
  if (dtype == ScalarType::Float) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<double*>(nullptr));
  }
}

}  // namespace perception3d
