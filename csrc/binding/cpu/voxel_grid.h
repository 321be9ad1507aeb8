// Arguments that dynamic and hard voxelisation share.
#pragma once

#include <limits>
#include <vector>

#include "common/check.h"
#include "cpu/voxelize.h"

namespace perception3d {

inline void check_points(const char* op, const Tensor& points) {
  check_cpu(op, "points", points, ScalarType::Float, 2);
  STD_TORCH_CHECK(points.size(1) >= 3, op, ": points must have at least 3 columns, got ",
                  points.size(1));
  STD_TORCH_CHECK(points.size(0) < std::numeric_limits<int32_t>::max(), op,
                  ": points must be fewer than 2^31 - 1, got ", points.size(0));
}

inline VoxelGrid voxel_grid(const char* op, int64_t batch_size,
                            const std::vector<double>& voxel_size, const std::vector<double>& lower,
                            const std::vector<int64_t>& grid_size, bool check_z) {
  STD_TORCH_CHECK(voxel_size.size() == 3 && lower.size() == 3 && grid_size.size() == 3, op,
                  ": voxel_size, lower and grid_size must have 3 entries");
  VoxelGrid grid{batch_size, {}, {}, {}, check_z};
  double keys = static_cast<double>(batch_size);
  for (int axis = 0; axis < 3; ++axis) {
    STD_TORCH_CHECK(grid_size[axis] >= 1, op, ": grid_size must be >= 1, got ", grid_size[axis]);
    grid.voxel_size[axis] = static_cast<float>(voxel_size[axis]);
    grid.lower[axis] = static_cast<float>(lower[axis]);
    grid.cells[axis] = grid_size[axis];
    keys *= static_cast<double>(grid_size[axis]);
  }
  STD_TORCH_CHECK(keys < 9e18, op, ": the cells of all frames must be fewer than 2^63");
  return grid;
}

}  // namespace perception3d
