#include "cuda/curve_order.h"

#include <tuple>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"
#include "binding/curves.h"
#include "cuda/device_sort.h"

namespace perception3d {
namespace {

void check_coords(const char* op, DeviceCall& call, const Tensor& coords) {
  call.check_input("coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  check_row_count(op, "coords", coords.size(0));
}

Tensor index_of_coords(const Tensor& coords, int64_t rank, int64_t shift, bool hilbert) {
  const char* op = "curve_index";
  const SpaceCurve curve = space_curve(op, rank, shift, hilbert);
  DeviceCall call(op, coords);
  check_coords(op, call, coords);
  Tensor index = call.allocate({coords.size(0)}, ScalarType::Long);
  call.check_status(cuda::curve_index(data_of<int32_t>(coords), coords.size(0), curve,
                                      mutable_data_of<int64_t>(index), call.stream()));
  return index;
}

std::tuple<Tensor, Tensor, Tensor> order_of_coords(const Tensor& coords, int64_t batch_size,
                                                   int64_t rank, int64_t shift, bool hilbert) {
  const char* op = "curve_order";
  const SpaceCurve curve = space_curve(op, rank, shift, hilbert);
  check_frame_count(op, batch_size);
  const int key_bits = 3 * curve.rank + cuda::bits_below(batch_size);
  STD_TORCH_CHECK(key_bits <= 64, op, ": at rank ", rank, " a batch may have ",
                  int64_t{1} << (64 - 3 * rank), " frames at most on this device, got ",
                  batch_size);
  DeviceCall call(op, coords);
  check_coords(op, call, coords);
  const int64_t count = coords.size(0);
  Tensor order = call.allocate({count}, ScalarType::Long);
  Tensor inverse = call.allocate({count}, ScalarType::Long);
  Tensor offsets = call.allocate({batch_size + 1}, ScalarType::Long);
  uint64_t *keys = call.workspace<uint64_t>(count), *sorted = call.workspace<uint64_t>(count);
  int32_t *rows = call.workspace<int32_t>(count), *sorted_rows = call.workspace<int32_t>(count);
  const int64_t bytes = cuda::sort_workspace_bytes<uint64_t>(count);
  unsigned char* scratch = call.workspace<unsigned char>(bytes);
  call.check_status(cuda::curve_keys(data_of<int32_t>(coords), count, batch_size, curve, keys, rows,
                                     call.stream()));
  call.check_status(cuda::device_sort_pairs<uint64_t>(keys, sorted, rows, sorted_rows, count,
                                                      key_bits, scratch, bytes, call.stream()));
  call.check_status(cuda::write_curve_order(
      sorted, sorted_rows, count, batch_size, curve, mutable_data_of<int64_t>(order),
      mutable_data_of<int64_t>(inverse), mutable_data_of<int64_t>(offsets), call.stream()));
  return {order, inverse, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("curve_index", TORCH_BOX(&index_of_coords));
  m.impl("curve_order", TORCH_BOX(&order_of_coords));
}

}  // namespace perception3d
