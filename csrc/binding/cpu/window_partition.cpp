#include "cpu/window_partition.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/grids.h"
#include "common/check.h"
#include "cpu/row_groups.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> window_partition(
    const Tensor& coords, int64_t batch_size, std::vector<int64_t> spatial_shape,
    std::vector<int64_t> window, std::vector<int64_t> shift, bool x_slowest) {
  check_cpu("window_partition", "coords", coords, ScalarType::Int, 2);
  check_size("window_partition", "coords", coords, 1, 4);
  const WindowGrid grid = window_grid(batch_size, spatial_shape, window, shift, x_slowest);
  const int threads = thread_count();
  const int64_t num_voxels = coords.size(0);
  const int32_t* cells = coords.const_data_ptr<int32_t>();

  Tensor window_of_voxel = torch::stable::new_empty(coords, {num_voxels}, ScalarType::Long);
  Tensor cell_in_window = torch::stable::new_empty(coords, {num_voxels, 3});
  int64_t* keys = window_of_voxel.mutable_data_ptr<int64_t>();
  const int64_t outside = window_keys(cells, num_voxels, grid, keys,
                                      cell_in_window.mutable_data_ptr<int32_t>(), threads);
  STD_TORCH_CHECK(outside < 0, "window_partition: coords must lie in a grid of ", spatial_shape[0],
                  " x ", spatial_shape[1], " x ", spatial_shape[2], " cells (z, y, x) and ",
                  batch_size, " frames, got (b, z, y, x) = (", cells[4 * outside], ", ",
                  cells[4 * outside + 1], ", ", cells[4 * outside + 2], ", ",
                  cells[4 * outside + 3], ") in row ", outside);

  const auto groups = group_rows(keys, num_voxels, grid.key_bound(), threads);
  Tensor order = torch::stable::new_empty(coords, {num_voxels}, ScalarType::Long);
  Tensor offsets = torch::stable::new_empty(coords, {groups->num_groups() + 1}, ScalarType::Long);
  std::vector<int64_t> window_keys(groups->num_groups());
  groups->write(order.mutable_data_ptr<int64_t>(), offsets.mutable_data_ptr<int64_t>(),
                window_keys.data());
  return {window_of_voxel, order, offsets, cell_in_window};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("window_partition", TORCH_BOX(&window_partition));
}

}  // namespace perception3d
