#include "cuda/window_partition.h"

#include <tuple>
#include <vector>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"
#include "binding/grids.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> window_partition(
    const Tensor& coords, int64_t batch_size, std::vector<int64_t> spatial_shape,
    std::vector<int64_t> window, std::vector<int64_t> shift, bool x_slowest) {
  const char* op = "window_partition";
  DeviceCall call(op, coords);
  call.check_input("coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  const int64_t num_voxels = coords.size(0);
  check_row_count(op, "coords", num_voxels);
  const WindowGrid grid = window_grid(batch_size, spatial_shape, window, shift, x_slowest);
  Tensor window_of_voxel = call.allocate({num_voxels}, ScalarType::Long);
  Tensor order = call.allocate({num_voxels}, ScalarType::Long);
  Tensor cell_in_window = call.allocate({num_voxels, 3}, ScalarType::Int);
  Tensor offsets;
  dispatch_key(grid.key_bound(), [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, num_voxels, grid.key_bound());
    call.check_status(cuda::group_voxels(data_of<int32_t>(coords), grid, groups,
                                         mutable_data_of<int32_t>(cell_in_window), call.stream()));
    const int64_t windows = call.read<1>(groups.totals())[0];
    offsets = call.allocate({windows + 1}, ScalarType::Long);
    call.check_status(cuda::write_windows(groups, mutable_data_of<int64_t>(window_of_voxel),
                                          mutable_data_of<int64_t>(order),
                                          mutable_data_of<int64_t>(offsets), call.stream()));
  });
  return {window_of_voxel, order, offsets, cell_in_window};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("window_partition", TORCH_BOX(&window_partition));
}

}  // namespace perception3d
