// Cells along a space-filling curve, see common/space_curve.h.  coords: (count, 4) rows b, z, y, x.
#pragma once

#include <cstdint>

#include "common/space_curve.h"

namespace perception3d {

// index: (count).  Returns the first row that lies outside the cube, or -1.
int64_t curve_index(const int32_t* coords, int64_t count, const SpaceCurve& curve, int64_t* index,
                    int threads);

// Sorts the rows by frame, then by index, then by row: order (count) and its inverse; offsets
// (batch_size + 1) count the rows of the frames before each.  Frames must be in 0 .. batch_size
// - 1.
void curve_order(const int32_t* coords, const int64_t* index, int64_t count, int64_t batch_size,
                 int rank, int64_t* order, int64_t* inverse, int64_t* offsets, int threads);

}  // namespace perception3d
