// The arguments of linear attention inside windows, for kernels of every device.
#pragma once

#include <cstdint>

#include "common/head_rows.h"
#include "common/scalar.h"

namespace perception3d {

// Scalar is float, double, BFloat16 or Float16; sums are kept in Compute<Scalar>.
template <typename Scalar>
struct LinearAttention {
  HeadRows<Scalar> query;  // key_width wide
  HeadRows<Scalar> key;    // key_width wide
  HeadRows<Scalar> value;  // value_width wide
  // Window w has the places offsets[w] .. offsets[w + 1] - 1; place p is row order[p], or row p if
  // order is null.  Offsets ascend from 0 to the number of rows, order is a permutation.
  const int64_t* offsets;
  int64_t num_windows;
  const int64_t* order;
  int64_t heads;
  int64_t key_width;
  int64_t value_width;
  Compute<Scalar> epsilon;
};

}  // namespace perception3d
