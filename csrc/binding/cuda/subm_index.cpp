#include "cuda/subm_index.h"

#include <vector>

#include "binding/cuda/device.h"
#include "binding/grids.h"

namespace perception3d {
namespace {

Tensor index(const Tensor& coords, int64_t batch_size, std::vector<int64_t> spatial_shape,
             std::vector<int64_t> kernel) {
  const char* op = "subm_index";
  DeviceCall call(op, coords);
  call.check_input("coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  const SubmGrid grid = subm_grid(batch_size, spatial_shape, kernel);
  const int64_t num_voxels = coords.size(0);
  STD_TORCH_CHECK(num_voxels < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  cuda::CellTable table = cuda::cell_table(num_voxels);
  STD_TORCH_CHECK(cuda::fits(table, grid), op,
                  ": on CUDA the number of cells in all frames times the number of voxels must "
                  "stay below 2^62");
  Tensor neighbours = call.allocate({num_voxels, grid.num_taps()}, ScalarType::Int);
  table.slots = call.workspace<unsigned long long>(table.capacity);
  call.check_status(cuda::subm_index(data_of<int32_t>(coords), num_voxels, grid, table,
                                     mutable_data_of<int32_t>(neighbours), call.stream()));
  return neighbours;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("subm_index", TORCH_BOX(&index));
}

}  // namespace perception3d
