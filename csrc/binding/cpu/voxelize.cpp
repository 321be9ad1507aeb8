#include "cpu/voxelize.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/voxel_grid.h"
#include "common/check.h"
#include "cpu/row_groups.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> voxelize(const Tensor& points,
                                                    const Tensor& frame_of_point,
                                                    int64_t batch_size,
                                                    std::vector<double> voxel_size,
                                                    std::vector<double> lower,
                                                    std::vector<int64_t> grid_size, bool check_z) {
  const char* op = "voxelize";
  check_points(op, points);
  check_cpu(op, "frame_of_point", frame_of_point, ScalarType::Int, 1);
  check_size(op, "frame_of_point", frame_of_point, 0, points.size(0));
  const VoxelGrid grid = voxel_grid(op, batch_size, voxel_size, lower, grid_size, check_z);
  const int threads = thread_count();
  const int64_t num_points = points.size(0);
  const int32_t* frames = frame_of_point.const_data_ptr<int32_t>();

  Tensor voxel_of_point = torch::stable::new_empty(points, {num_points}, ScalarType::Long);
  int64_t* keys = voxel_of_point.mutable_data_ptr<int64_t>();
  const int64_t bad_frame = voxel_keys(points.const_data_ptr<float>(), num_points, points.size(1),
                                       frames, grid, keys, threads);
  STD_TORCH_CHECK(bad_frame < 0, "voxelize: frame_of_point must be in 0..", batch_size - 1,
                  ", got ", frames[bad_frame], " for point ", bad_frame);

  const auto groups = group_rows(keys, num_points, grid.key_bound(), threads);
  const int64_t num_voxels = groups->num_groups();
  Tensor order = torch::stable::new_empty(points, {groups->num_kept()}, ScalarType::Long);
  Tensor offsets = torch::stable::new_empty(points, {num_voxels + 1}, ScalarType::Long);
  Tensor coords = torch::stable::new_empty(points, {num_voxels, 4}, ScalarType::Int);
  std::vector<int64_t> voxel_keys(num_voxels);
  groups->write(order.mutable_data_ptr<int64_t>(), offsets.mutable_data_ptr<int64_t>(),
                voxel_keys.data());
  coords_of_keys(voxel_keys.data(), num_voxels, grid, coords.mutable_data_ptr<int32_t>(), threads);
  return {voxel_of_point, coords, order, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("voxelize", TORCH_BOX(&voxelize)); }

}  // namespace perception3d
