// Windows of voxels.
#pragma once

#include <cstdint>

#include "common/window_grid.h"

namespace perception3d {

// coords (num_voxels, 4) rows b, z, y, x.  Fills key_of_voxel (num_voxels), ascending with the
// window, and cell_in_window (num_voxels, 3) z, y, x.  Returns the first voxel outside the grid,
// or -1.
int64_t window_keys(const int32_t* coords, int64_t num_voxels, const WindowGrid& grid,
                    int64_t* key_of_voxel, int32_t* cell_in_window, int threads);

}  // namespace perception3d
