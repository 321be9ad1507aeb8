// Neighbours of every voxel under a convolution kernel.
#pragma once

#include <cstdint>

namespace perception3d {

// Sizes in order z, y, x.  Every kernel size is odd; there are at most kMostTaps taps.
struct SubmGrid {
  int64_t batch_size;
  int64_t spatial_shape[3];
  int64_t kernel[3];

  int64_t num_taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

constexpr int64_t kMostTaps = 32768;

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
