#include "cpu/sparse_index.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "common/check.h"

namespace perception3d {
namespace {

typedef std::vector<int64_t> Sizes;

StridedGrid checked_grid(int64_t batch_size, const Sizes& spatial_shape, const Sizes& kernel,
                         const Sizes& stride, const Sizes& padding) {
  STD_TORCH_CHECK(
      spatial_shape.size() == 3 && kernel.size() == 3 && stride.size() == 3 && padding.size() == 3,
      "sparse_index: spatial_shape, kernel, stride and padding must have 3 entries");
  STD_TORCH_CHECK(batch_size >= 1, "sparse_index: batch_size must be >= 1");
  StridedGrid grid{batch_size, {}, {}, {}, {}};
  int64_t cells = batch_size, taps = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t limit = INT32_MAX;
    STD_TORCH_CHECK(spatial_shape[axis] >= 1 && spatial_shape[axis] <= limit && kernel[axis] >= 1 &&
                        kernel[axis] <= limit && stride[axis] >= 1 && stride[axis] <= limit &&
                        padding[axis] >= 0 && padding[axis] <= limit,
                    "sparse_index: sizes must be >= 1, padding >= 0, all at most 2^31 - 1");
    grid.spatial_shape[axis] = spatial_shape[axis];
    grid.kernel[axis] = kernel[axis];
    grid.stride[axis] = stride[axis];
    grid.padding[axis] = padding[axis];
    STD_TORCH_CHECK(spatial_shape[axis] + 2 * padding[axis] >= kernel[axis],
                    "sparse_index: the kernel is larger than the padded grid");
    int64_t size = grid.output_shape(axis);
    if (axis == 2) size = (size + kLineCells - 1) / kLineCells * kLineCells;
    const bool fits = size <= limit && !__builtin_mul_overflow(cells, size, &cells) &&
                      !__builtin_mul_overflow(taps, kernel[axis], &taps);
    STD_TORCH_CHECK(fits && cells < int64_t{1} << 62 && taps <= 32768,
                    "sparse_index: there may be 2^62 - 1 output cells and 32768 taps at most");
  }
  return grid;
}

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
  const StridedGrid grid = checked_grid(batch_size, spatial_shape, kernel, stride, padding);
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
