// The arguments of softmax attention inside sets, for kernels of every device.
#pragma once

#include <cstdint>

#include "common/head_rows.h"
#include "common/scalar.h"

namespace perception3d {

// Set s holds the rows order[offsets[s]..offsets[s + 1]); every row is in one set.
struct RowSets {
  const int64_t* order;
  const int64_t* offsets;
  int64_t count;
};

// Scalar is float, double, BFloat16 or Float16; sums are kept in Compute<Scalar>.
template <typename Scalar>
struct AttentionRows {
  HeadRows<Scalar> query, key, value;
  int64_t heads, width;
};

// (num_rows, heads, width) each.
template <typename Scalar>
struct AttentionGradients {
  WritableHeadRows<Scalar> query, key, value;
};

}  // namespace perception3d
