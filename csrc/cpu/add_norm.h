// Residual sums and layer norms of rows.
#pragma once

#include <cstdint>

#include "common/parallel.h"

namespace perception3d {

// x <- LayerNorm(x + kept) of every row.  Row r of kept begins at kept + r * step, or at
// kept + order[r] * step where there is an order.
template <typename Number>
struct AddNorm {
  const Number* kept;
  int64_t step;
  const int64_t* order;
  const Number *weight, *bias;  // (columns)

  P3D_INLINE const Number* at(int64_t r) const {
    return kept + (order == nullptr ? r : order[r]) * step;
  }
};

// One after the other.
template <typename Number>
struct AddNorms {
  const AddNorm<Number>* stages;
  int64_t count;
  Number epsilon;
};

// `rows` rows of a contiguous matrix.  Row r of the result is row order[r] of `target`, which is
// contiguous too and as wide; without an order row r.  The target may be the matrix, which is lost
// otherwise.  A row of the result depends on its own rows only, bit for bit.
template <typename Number>
void add_and_norm(const AddNorms<Number>& norms, int64_t columns, int64_t rows, Number* matrix,
                  Number* target, const int64_t* order);

}  // namespace perception3d
