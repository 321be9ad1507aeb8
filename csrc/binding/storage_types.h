// From torch's dtypes to the storage types of kernels.
#pragma once

#include "common/check.h"
#include "common/scalar.h"

namespace perception3d {

template <typename Scalar>
const Scalar* data_of(const Tensor& tensor) {
  return static_cast<const Scalar*>(tensor.const_data_ptr());
}

template <typename Scalar>
Scalar* mutable_data_of(const Tensor& tensor) {
  return static_cast<Scalar*>(tensor.mutable_data_ptr());
}

// Calls body with a null pointer of the tensor's storage type: float, double, BFloat16 or Float16.
template <typename Body>
void dispatch_storage(const char* op, const char* name, const Tensor& tensor, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return body(static_cast<double*>(nullptr));
    case ScalarType::BFloat16:
      return body(static_cast<BFloat16*>(nullptr));
    case ScalarType::Half:
      return body(static_cast<Float16*>(nullptr));
    default:
      STD_TORCH_CHECK(false, op, ": ", name, " must be float32, float64, bfloat16 or float16, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

}  // namespace perception3d
