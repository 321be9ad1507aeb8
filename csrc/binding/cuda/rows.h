// The storage types that the kernels of sequences exist for.
#pragma once

#include "binding/cuda/device.h"

namespace perception3d {

inline void check_row_type(const char* op, const char* name, const Tensor& rows) {
  STD_TORCH_CHECK(rows.scalar_type() != ScalarType::Double, op,
                  ": float64 is computed on the CPU only; ", name,
                  " must be float32, bfloat16 or float16");
}

// Calls body with a null pointer of the rows' scalar type.
template <typename Body>
void dispatch_rows(const Tensor& rows, const Body& body) {
  if (rows.scalar_type() == ScalarType::Float) return body(static_cast<float*>(nullptr));
  if (rows.scalar_type() == ScalarType::Half) return body(static_cast<Float16*>(nullptr));
  body(static_cast<BFloat16*>(nullptr));
}

}  // namespace perception3d
