// Windows of voxels.
#pragma once

#include <cstdint>

namespace perception3d {

struct WindowGrid {
  int64_t batch_size;
  int64_t spatial_shape[3];  // z, y, x, cells
  int64_t window[3];         // z, y, x, cells
  int64_t shift[3];          // z, y, x, cells
  bool x_slowest;            // windows numbered by (b, x, y, z), else by (b, z, y, x)
};

// A number above every window key of the grid.
int64_t window_key_bound(const WindowGrid& grid);

// coords (num_voxels, 4) rows b, z, y, x.  Fills key_of_voxel (num_voxels), ascending with the
// window, and cell_in_window (num_voxels, 3) z, y, x.  Returns the first voxel outside the grid,
// or -1.
int64_t window_keys(const int32_t* coords, int64_t num_voxels, const WindowGrid& grid,
                    int64_t* key_of_voxel, int32_t* cell_in_window, int threads);

}  // namespace perception3d
