#include "cpu/window_partition.h"

#include <vector>

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kVoxelsPerWorker = 32768;

// Window and cell of every coordinate of one axis: a table saves the divisions per voxel.
struct AxisTable {
  std::vector<int32_t> window;  // counted from the window of coordinate 0
  std::vector<int32_t> cell;

  AxisTable(const WindowGrid& grid, int axis)
      : window(grid.spatial_shape[axis]), cell(grid.spatial_shape[axis]) {
    const int64_t size = grid.window[axis], shift = grid.shift[axis];
    const int64_t first = grid.first_window(axis);
    for (int64_t c = 0; c < grid.spatial_shape[axis]; ++c) {
      const int64_t w = WindowGrid::floor_divide(c + shift, size);
      window[c] = static_cast<int32_t>(w - first);
      cell[c] = static_cast<int32_t>(c + shift - w * size);
    }
  }
};

}  // namespace

int64_t window_keys(const int32_t* coords, int64_t num_voxels, const WindowGrid& grid,
                    int64_t* key_of_voxel, int32_t* cell_in_window, int threads) {
  const AxisTable z_axis(grid, 0), y_axis(grid, 1), x_axis(grid, 2);
  const int64_t z_step = grid.step(0), y_step = grid.step(1), x_step = grid.step(2);
  const int64_t b_step = grid.step(3);
  const int workers = worker_count(threads, num_voxels, kVoxelsPerWorker);
  std::vector<int64_t> outside(workers, -1);
  for_each_block(workers, num_voxels, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t voxel = begin; voxel < end; ++voxel) {
      const int64_t b = coords[4 * voxel], z = coords[4 * voxel + 1];
      const int64_t y = coords[4 * voxel + 2], x = coords[4 * voxel + 3];
      if (b < 0 || b >= grid.batch_size || z < 0 || z >= grid.spatial_shape[0] || y < 0 ||
          y >= grid.spatial_shape[1] || x < 0 || x >= grid.spatial_shape[2]) {
        outside[worker] = voxel;
        return;
      }
      key_of_voxel[voxel] = b * b_step + z_axis.window[z] * z_step + y_axis.window[y] * y_step +
                            x_axis.window[x] * x_step;
      cell_in_window[3 * voxel] = z_axis.cell[z];
      cell_in_window[3 * voxel + 1] = y_axis.cell[y];
      cell_in_window[3 * voxel + 2] = x_axis.cell[x];
    }
  });
  for (const int64_t voxel : outside) {
    if (voxel >= 0) return voxel;
  }
  return -1;
}

}  // namespace perception3d
