// Windows of voxels on CUDA.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "common/window_grid.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

// coords (num_voxels, 4) rows b, z, y, x, inside the grid.  Groups the voxels by window and fills
// cell_in_window (num_voxels, 3) z, y, x.  Rows outside the grid count as cell 0 of frame 0.
template <typename Key>
Status group_voxels(const int32_t* coords, const WindowGrid& grid, const RowGroups<Key>& groups,
                    int32_t* cell_in_window, Stream stream);

// After group_voxels: window_of_voxel (num_voxels), order (num_voxels), offsets (windows + 1).
template <typename Key>
Status write_windows(const RowGroups<Key>& groups, int64_t* window_of_voxel, int64_t* order,
                     int64_t* offsets, Stream stream);

}  // namespace cuda
}  // namespace perception3d
