#include "cpu/curve_order.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/curves.h"
#include "common/check.h"

namespace perception3d {
namespace {

Tensor index(const char* op, const Tensor& coords, const SpaceCurve& curve) {
  check_cpu(op, "coords", coords, ScalarType::Int, 2);
  check_size(op, "coords", coords, 1, 4);
  const int64_t count = coords.size(0);
  const int32_t* cells = coords.const_data_ptr<int32_t>();
  Tensor result = torch::stable::new_empty(coords, {count}, ScalarType::Long);
  const int64_t outside =
      curve_index(cells, count, curve, result.mutable_data_ptr<int64_t>(), thread_count());
  STD_TORCH_CHECK(outside < 0, op, ": coords plus the shift must be in 0..",
                  (int64_t{1} << curve.rank) - 1, ", got (z, y, x) = (", cells[4 * outside + 1],
                  ", ", cells[4 * outside + 2], ", ", cells[4 * outside + 3], ") with shift ",
                  curve.shift, " in row ", outside);
  return result;
}

Tensor index_of_coords(const Tensor& coords, int64_t rank, int64_t shift, bool hilbert) {
  return index("curve_index", coords, space_curve("curve_index", rank, shift, hilbert));
}

std::tuple<Tensor, Tensor, Tensor> order_of_coords(const Tensor& coords, int64_t batch_size,
                                                   int64_t rank, int64_t shift, bool hilbert) {
  const char* op = "curve_order";
  const SpaceCurve curve = space_curve(op, rank, shift, hilbert);
  const Tensor places = index(op, coords, curve);
  const int64_t count = coords.size(0);
  check_frame_count(op, batch_size);
  const int32_t* cells = coords.const_data_ptr<int32_t>();
  for (int64_t row = 0; row < count; ++row) {
    const int64_t frame = cells[4 * row];
    STD_TORCH_CHECK(frame >= 0 && frame < batch_size, op, ": frames must be in 0..", batch_size - 1,
                    ", got ", frame, " in row ", row);
  }
  Tensor order = torch::stable::new_empty(coords, {count}, ScalarType::Long);
  Tensor inverse = torch::stable::new_empty(coords, {count}, ScalarType::Long);
  Tensor offsets = torch::stable::new_empty(coords, {batch_size + 1}, ScalarType::Long);
  curve_order(cells, places.const_data_ptr<int64_t>(), count, batch_size, curve.rank,
              order.mutable_data_ptr<int64_t>(), inverse.mutable_data_ptr<int64_t>(),
              offsets.mutable_data_ptr<int64_t>(), thread_count());
  return {order, inverse, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("curve_index", TORCH_BOX(&index_of_coords));
  m.impl("curve_order", TORCH_BOX(&order_of_coords));
}

}  // namespace perception3d
