#include "cuda/voxelize.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"
#include "binding/grids.h"

namespace perception3d {
namespace {

void check_points(const char* op, DeviceCall& call, const Tensor& points) {
  call.check_input("points", points, ScalarType::Float, 2);
  STD_TORCH_CHECK(points.size(1) >= 3, op, ": points must have at least 3 columns, got ",
                  points.size(1));
  check_row_count(op, "points", points.size(0));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> voxelize(const Tensor& points,
                                                    const Tensor& frame_of_point,
                                                    int64_t batch_size,
                                                    std::vector<double> voxel_size,
                                                    std::vector<double> lower,
                                                    std::vector<int64_t> grid_size, bool check_z) {
  const char* op = "voxelize";
  DeviceCall call(op, points);
  check_points(op, call, points);
  call.check_input("frame_of_point", frame_of_point, ScalarType::Int, 1);
  check_size(op, "frame_of_point", frame_of_point, 0, points.size(0));
  const VoxelGrid grid = voxel_grid(op, batch_size, voxel_size, lower, grid_size, check_z);
  const int64_t num_points = points.size(0);
  const cuda::PointRows rows{data_of<float>(points), points.size(1),
                             data_of<int32_t>(frame_of_point)};
  Tensor voxel_of_point = call.allocate({num_points}, ScalarType::Long);
  Tensor coords, order, offsets;
  dispatch_key(grid.key_bound(), [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, num_points, grid.key_bound());
    call.check_status(cuda::group_points(rows, grid, groups, call.stream()));
    const auto [voxels, kept] = call.read<2>(groups.totals());
    coords = call.allocate({voxels, 4}, ScalarType::Int);
    order = call.allocate({kept}, ScalarType::Long);
    offsets = call.allocate({voxels + 1}, ScalarType::Long);
    call.check_status(cuda::write_voxels(
        grid, groups, mutable_data_of<int64_t>(voxel_of_point), mutable_data_of<int32_t>(coords),
        mutable_data_of<int64_t>(order), mutable_data_of<int64_t>(offsets), call.stream()));
  });
  return {voxel_of_point, coords, order, offsets};
}

std::tuple<Tensor, Tensor, Tensor> hard_voxelize(const Tensor& points,
                                                 std::vector<double> voxel_size,
                                                 std::vector<double> lower,
                                                 std::vector<int64_t> grid_size, int64_t max_points,
                                                 int64_t max_voxels) {
  const char* op = "hard_voxelize";
  DeviceCall call(op, points);
  check_points(op, call, points);
  STD_TORCH_CHECK(max_points >= 1 && max_voxels >= 1,
                  "hard_voxelize: max_points and max_voxels must be >= 1");
  const VoxelGrid grid = voxel_grid(op, 1, voxel_size, lower, grid_size, true);
  const int64_t num_points = points.size(0);
  const cuda::PointRows rows{data_of<float>(points), points.size(1), nullptr};
  Tensor voxel_of_point = call.allocate({num_points}, ScalarType::Long);
  Tensor coords, points_in_voxel;
  dispatch_key(grid.key_bound(), [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, num_points, grid.key_bound());
    const cuda::Arrivals arrivals{call.workspace<int64_t>(num_points + 1),
                                  call.workspace<int64_t>(num_points + 1)};
    call.check_status(cuda::group_points(rows, grid, groups, call.stream()));
    call.check_status(cuda::number_arrivals(groups, arrivals, call.stream()));
    const int64_t cells = call.read<1>(arrivals.voxels_before + num_points)[0];
    const int64_t voxels = std::min(cells, max_voxels);
    coords = call.allocate({voxels, 4}, ScalarType::Int);
    points_in_voxel = call.allocate({voxels}, ScalarType::Long);
    call.check_status(cuda::write_hard_voxels(
        grid, groups, arrivals, max_points, max_voxels, mutable_data_of<int64_t>(voxel_of_point),
        mutable_data_of<int32_t>(coords), mutable_data_of<int64_t>(points_in_voxel),
        call.stream()));
  });
  return {voxel_of_point, coords, points_in_voxel};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("voxelize", TORCH_BOX(&voxelize));
  m.impl("hard_voxelize", TORCH_BOX(&hard_voxelize));
}

}  // namespace perception3d
