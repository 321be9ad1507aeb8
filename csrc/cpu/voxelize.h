// Points to voxels.
#pragma once

#include <cstdint>

#include "common/voxel_grid.h"

namespace perception3d {

// points (num_points, columns), columns >= 3: x, y, z, ...; frame_of_point (num_points).  Fills
// key_of_point with the cell number, ascending by (b, x, y, z), -1 for points outside the grid and
// for points whose x, y or z is not finite.  cell = floor((p - lower) / voxel_size), a float
// subtraction and a float division.  Returns the first point whose frame is not in the batch, or
// -1.
int64_t voxel_keys(const float* points, int64_t num_points, int64_t columns,
                   const int32_t* frame_of_point, const VoxelGrid& grid, int64_t* key_of_point,
                   int threads);

// Fills coords (num_keys, 4) rows b, z, y, x.
void coords_of_keys(const int64_t* keys, int64_t num_keys, const VoxelGrid& grid, int32_t* coords,
                    int threads);

}  // namespace perception3d
