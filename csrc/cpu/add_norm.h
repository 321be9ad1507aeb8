// Residual sums and layer norms of rows.
#pragma once

#include <cstdint>

namespace perception3d {

// x <- LayerNorm(x + kept) of every row.  Row r of kept begins at kept + r * step.
template <typename Number>
struct AddNorm {
  const Number* kept;
  int64_t step;
  const Number *weight, *bias;  // (columns)
};

// One after the other.
template <typename Number>
struct AddNorms {
  const AddNorm<Number>* stages;
  int64_t count;
  Number epsilon;
};

// Rows begin .. end - 1 of a contiguous matrix, in place.
template <typename Number>
void add_and_norm(const AddNorms<Number>& norms, int64_t columns, int64_t begin, int64_t end,
                  Number* matrix);

}  // namespace perception3d
