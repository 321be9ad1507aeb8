#include "cpu/hard_voxelize.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/voxel_grid.h"
#include "common/check.h"
#include "cpu/voxelize.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor> hard_voxelize_points(const Tensor& points,
                                                        std::vector<double> voxel_size,
                                                        std::vector<double> lower,
                                                        std::vector<int64_t> grid_size,
                                                        int64_t max_points, int64_t max_voxels) {
  const char* op = "hard_voxelize";
  check_points(op, points);
  STD_TORCH_CHECK(max_points >= 1 && max_voxels >= 1,
                  "hard_voxelize: max_points and max_voxels must be >= 1");
  const VoxelGrid grid = voxel_grid(op, 1, voxel_size, lower, grid_size, true);
  const int threads = thread_count();
  const int64_t num_points = points.size(0);
  const std::vector<int32_t> frames(num_points, 0);

  Tensor voxel_of_point = torch::stable::new_empty(points, {num_points}, ScalarType::Long);
  int64_t* keys = voxel_of_point.mutable_data_ptr<int64_t>();
  voxel_keys(points.const_data_ptr<float>(), num_points, points.size(1), frames.data(), grid, keys,
             threads);
  std::vector<int64_t> keys_of_voxels, counts;
  hard_voxelize(keys, num_points, max_points, max_voxels, keys_of_voxels, counts);

  const int64_t num_voxels = static_cast<int64_t>(keys_of_voxels.size());
  Tensor coords = torch::stable::new_empty(points, {num_voxels, 4}, ScalarType::Int);
  Tensor points_in_voxel = torch::stable::new_empty(points, {num_voxels}, ScalarType::Long);
  coords_of_keys(keys_of_voxels.data(), num_voxels, grid, coords.mutable_data_ptr<int32_t>(),
                 threads);
  std::copy(counts.begin(), counts.end(), points_in_voxel.mutable_data_ptr<int64_t>());
  return {voxel_of_point, coords, points_in_voxel};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("hard_voxelize", TORCH_BOX(&hard_voxelize_points));
}

}  // namespace perception3d
