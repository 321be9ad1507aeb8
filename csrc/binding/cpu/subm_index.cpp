#include "cpu/subm_index.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/grids.h"
#include "common/check.h"

namespace perception3d {
namespace {

Tensor index(const Tensor& coords, int64_t batch_size, std::vector<int64_t> spatial_shape,
             std::vector<int64_t> kernel) {
  check_cpu("subm_index", "coords", coords, ScalarType::Int, 2);
  check_size("subm_index", "coords", coords, 1, 4);
  const SubmGrid grid = subm_grid(batch_size, spatial_shape, kernel);
  const int64_t num_voxels = coords.size(0);
  STD_TORCH_CHECK(num_voxels < INT32_MAX, "subm_index: there must be fewer than 2^31 - 1 voxels");
  const int32_t* cells = coords.const_data_ptr<int32_t>();

  Tensor neighbours = torch::stable::new_empty(coords, {num_voxels, grid.num_taps()});
  const CoordsFault fault =
      subm_index(cells, num_voxels, grid, neighbours.mutable_data_ptr<int32_t>(), thread_count());
  if (fault.row >= 0) {
    const int32_t* cell = cells + 4 * fault.row;
    STD_TORCH_CHECK(fault.other < 0, "subm_index: coords must be unique, got (b, z, y, x) = (",
                    cell[0], ", ", cell[1], ", ", cell[2], ", ", cell[3], ") in rows ", fault.other,
                    " and ", fault.row);
    STD_TORCH_CHECK(false, "subm_index: coords must lie in a grid of ", spatial_shape[0], " x ",
                    spatial_shape[1], " x ", spatial_shape[2], " cells (z, y, x) and ", batch_size,
                    " frames, got (b, z, y, x) = (", cell[0], ", ", cell[1], ", ", cell[2], ", ",
                    cell[3], ") in row ", fault.row);
  }
  return neighbours;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("subm_index", TORCH_BOX(&index)); }

}  // namespace perception3d
