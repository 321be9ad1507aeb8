// Neighbours of every voxel under a convolution kernel.
#pragma once

#include <cstdint>

#include "common/subm_grid.h"

namespace perception3d {

// What is wrong with coordinates.  row < 0: nothing.  Else the voxel `row` lies outside the grid,
// or, with other >= 0, in the same cell as the voxel `other`.
struct CoordsFault {
  int64_t row;
  int64_t other;
};

// neighbours (num_voxels, taps): row of the voxel at cell + tap - centre, -1 where none is; taps
// are numbered row-major over (z, y, x).  coords: rows (b, z, y, x).  On a fault the table is
// incomplete.
CoordsFault subm_index(const int32_t* coords, int64_t num_voxels, const SubmGrid& grid,
                       int32_t* neighbours, int threads);

}  // namespace perception3d
