// How a grid of cells is cut into windows.
#pragma once

#include <cstdint>

namespace perception3d {

struct WindowGrid {
  int64_t batch_size;
  int64_t spatial_shape[3];  // z, y, x, cells
  int64_t window[3];         // z, y, x, cells
  int64_t shift[3];          // z, y, x, cells
  bool x_slowest;            // windows numbered by (b, x, y, z), else by (b, z, y, x)

  static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

  // The window of coordinate 0; window numbers of an axis count from here.
  int64_t first_window(int axis) const { return floor_divide(shift[axis], window[axis]); }

  int64_t windows(int axis) const {
    return floor_divide(spatial_shape[axis] - 1 + shift[axis], window[axis]) - first_window(axis) +
           1;
  }

  // How far window numbers of two neighbours on an axis (z, y, x; 3: the frame) are apart.
  int64_t step(int axis) const {
    const int64_t nz = windows(0), ny = windows(1), nx = windows(2);
    const int64_t slow_x[4] = {1, nz, ny * nz, nx * ny * nz};
    const int64_t slow_z[4] = {ny * nx, nx, 1, nx * ny * nz};
    return x_slowest ? slow_x[axis] : slow_z[axis];
  }

  // A number above every window number of the grid.
  int64_t key_bound() const { return batch_size * step(3); }
};

}  // namespace perception3d
