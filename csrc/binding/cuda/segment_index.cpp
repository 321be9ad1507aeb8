#include "cuda/segment_index.h"

#include <tuple>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor> segment_index(const Tensor& segment_of_row, int64_t num_segments) {
  const char* op = "segment_index";
  DeviceCall call(op, segment_of_row);
  call.check_input("segment_of_row", segment_of_row, ScalarType::Long, 1);
  check_row_count(op, "segment_of_row", segment_of_row.size(0));
  STD_TORCH_CHECK(num_segments >= 0, op, ": num_segments must be >= 0, got ", num_segments);
  Tensor offsets = call.allocate({num_segments + 1}, ScalarType::Long);
  Tensor order;
  dispatch_key(num_segments, [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, segment_of_row.size(0), num_segments);
    int64_t* offset = mutable_data_of<int64_t>(offsets);
    call.check_status(cuda::sort_by_segment(data_of<int64_t>(segment_of_row), num_segments, groups,
                                            offset, call.stream()));
    const int64_t kept = call.read<1>(offset + num_segments)[0];
    order = call.allocate({kept}, ScalarType::Long);
    call.check_status(
        cuda::write_order(groups, kept, mutable_data_of<int64_t>(order), call.stream()));
  });
  return {order, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("segment_index", TORCH_BOX(&segment_index));
}

}  // namespace perception3d
