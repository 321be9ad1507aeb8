#include "cpu/sparse_index.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/grids.h"

namespace perception3d {
namespace {

typedef std::vector<int64_t> Sizes;

void check_fault(const StridedFault& fault, const int32_t* cells, const StridedGrid& grid) {
  if (fault.row < 0) return;
  const int32_t* cell = cells + 4 * fault.row;
  STD_TORCH_CHECK(fault.other < 0, "sparse_index: coords must be unique, got (b, z, y, x) = (",
                  cell[0], ", ", cell[1], ", ", cell[2], ", ", cell[3], ") in rows ", fault.other,
                  " and ", fault.row);
  const int64_t* shape = grid.spatial_shape;
  STD_TORCH_CHECK(false, "sparse_index: coords must lie in a grid of ", shape[0], " x ", shape[1],
                  " x ", shape[2], " cells (z, y, x) and ", grid.batch_size,
                  " frames, got (b, z, y, x) = (", cell[0], ", ", cell[1], ", ", cell[2], ", ",
                  cell[3], ") in row ", fault.row);
}

std::tuple<Tensor, Tensor, Tensor> index(const Tensor& coords, int64_t batch_size,
                                         Sizes spatial_shape, Sizes kernel, Sizes stride,
                                         Sizes padding) {
  const char* op = "sparse_index";
  check_cpu(op, "coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  const StridedGrid grid = strided_grid(batch_size, spatial_shape, kernel, stride, padding);
  const int64_t num_voxels = coords.size(0);
  STD_TORCH_CHECK(num_voxels < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  const int32_t* cells = coords.const_data_ptr<int32_t>();
  const SparseIndex found(cells, num_voxels, grid);
  check_fault(found.fault(), cells, grid);
  STD_TORCH_CHECK(found.num_outputs() < INT32_MAX, op,
                  ": there must be fewer than 2^31 - 1 outputs, got ", found.num_outputs());
  Tensor out_coords = torch::stable::new_empty(coords, {found.num_outputs(), 4});
  Tensor inputs = torch::stable::new_empty(coords, {found.num_outputs(), grid.num_taps()});
  Tensor outputs = torch::stable::new_empty(coords, {num_voxels, grid.num_taps()});
  const StridedFault fault =
      found.write(out_coords.mutable_data_ptr<int32_t>(), inputs.mutable_data_ptr<int32_t>(),
                  outputs.mutable_data_ptr<int32_t>());
  check_fault(fault, cells, grid);
  return {out_coords, inputs, outputs};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("sparse_index", TORCH_BOX(&index)); }

}  // namespace perception3d
