// Rows of several heads, as attention reads them.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace perception3d {

// (rows, heads, width) numbers in memory, the last axis without gaps.
template <typename Scalar>
struct HeadRows {
  const Scalar* numbers;
  int64_t row_stride;
  int64_t head_stride;

  P3D_HOST_DEVICE const Scalar* at(int64_t row, int64_t head) const {
    return numbers + row * row_stride + head * head_stride;
  }
};

// The same, to be written.
template <typename Scalar>
struct WritableHeadRows {
  Scalar* numbers;
  int64_t row_stride;
  int64_t head_stride;

  P3D_HOST_DEVICE Scalar* at(int64_t row, int64_t head) const {
    return numbers + row * row_stride + head * head_stride;
  }
};

}  // namespace perception3d
