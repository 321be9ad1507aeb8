#include "cuda/sparse_index.h"

#include <tuple>
#include <vector>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"
#include "binding/grids.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor> index(const Tensor& coords, int64_t batch_size,
                                         std::vector<int64_t> spatial_shape,
                                         std::vector<int64_t> kernel, std::vector<int64_t> stride,
                                         std::vector<int64_t> padding) {
  const char* op = "sparse_index";
  DeviceCall call(op, coords);
  call.check_input("coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  const StridedGrid grid = strided_grid(batch_size, spatial_shape, kernel, stride, padding);
  const int64_t num_voxels = coords.size(0), taps = grid.num_taps();
  STD_TORCH_CHECK(num_voxels < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  const auto pairs = cuda::strided_pairs(data_of<int32_t>(coords), num_voxels, grid);
  STD_TORCH_CHECK(pairs.count() < INT32_MAX - 1, op,
                  ": on CUDA voxels times outputs that may see one must be fewer than 2^31 - 2, "
                  "got ",
                  pairs.count());
  Tensor out_coords, inputs;
  Tensor outputs = call.allocate({num_voxels, taps}, ScalarType::Int);
  dispatch_key(pairs.key_bound(), [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, pairs.count(), pairs.key_bound());
    call.check_status(cuda::group_pairs(pairs, groups, call.stream()));
    const int64_t found = call.read<1>(groups.totals())[0];
    out_coords = call.allocate({found, 4}, ScalarType::Int);
    inputs = call.allocate({found, taps}, ScalarType::Int);
    call.check_status(cuda::write_pairs(pairs, groups, found, mutable_data_of<int32_t>(out_coords),
                                        mutable_data_of<int32_t>(inputs),
                                        mutable_data_of<int32_t>(outputs), call.stream()));
  });
  return {out_coords, inputs, outputs};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("sparse_index", TORCH_BOX(&index));
}

}  // namespace perception3d
