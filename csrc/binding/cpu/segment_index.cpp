#include "cpu/segment_index.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "common/check.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor> segment_index(const Tensor &segment_of_row, int64_t num_segments) {
  check_cpu("segment_index", "segment_of_row", segment_of_row, ScalarType::Long, 1);
  STD_TORCH_CHECK(num_segments >= 0, "segment_index: num_segments must be >= 0, got ",
                  num_segments);
  const int threads = thread_count();
  const int64_t *segments = segment_of_row.const_data_ptr<int64_t>();
  const int64_t num_rows = segment_of_row.size(0);
  Tensor offsets = torch::stable::new_empty(segment_of_row, {num_segments + 1});
  int64_t *offset = offsets.mutable_data_ptr<int64_t>();
  const int64_t bad_row = count_segments(segments, num_rows, num_segments, offset, threads);
  STD_TORCH_CHECK(bad_row < 0,
                  "segment_index: segment_of_row must be < num_segments = ", num_segments, ", got ",
                  segments[bad_row], " in row ", bad_row);
  Tensor order = torch::stable::new_empty(segment_of_row, {offset[num_segments]});
  sort_by_segment(segments, num_rows, num_segments, offset, order.mutable_data_ptr<int64_t>(),
                  threads);
  return {order, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("segment_index", TORCH_BOX(&segment_index));
}

}  // namespace perception3d
