#include "cpu/segment_reduce.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/row_lists.h"
#include "binding/storage_types.h"
#include "common/check.h"

namespace perception3d {
namespace {

// The kernels follow offsets into order and order into values: both must stay inside.
Segments checked_segments(const char* op, const Tensor& order, const Tensor& offsets,
                          int64_t num_rows) {
  check_cpu(op, "order", order, ScalarType::Long, 1);
  check_cpu(op, "offsets", offsets, ScalarType::Long, 1);
  STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
  STD_TORCH_CHECK(num_rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 rows");
  const int64_t count = offsets.size(0) - 1;
  const int64_t places = order.size(0);
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  check_offsets(op, offset, count, places);
  const int64_t* row = order.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < places; ++i) {
    STD_TORCH_CHECK(row[i] >= 0 && row[i] < num_rows, op, ": order must be in 0..", num_rows - 1,
                    ", got ", row[i], " in row ", i);
  }
  return {row, offset, count};
}

Tensor sum(const Tensor& values, const Tensor& order, const Tensor& offsets, bool mean) {
  const char* op = "segment_sum";
  check_cpu(op, "values", values, values.scalar_type(), 2);
  const Segments segments = checked_segments(op, order, offsets, values.size(0));
  const int64_t columns = values.size(1);
  Tensor result = fresh_tensor(values, {segments.count, columns});
  dispatch_storage(op, "values", values, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    segment_sum(data_of<Scalar>(values), segments, columns, mean, mutable_data_of<Scalar>(result),
                thread_count());
  });
  return result;
}

Tensor sum_backward(const Tensor& grad, const Tensor& order, const Tensor& offsets,
                    int64_t num_rows, bool mean) {
  const char* op = "segment_sum_backward";
  check_cpu(op, "grad", grad, grad.scalar_type(), 2);
  const Segments segments = checked_segments(op, order, offsets, num_rows);
  check_size(op, "grad", grad, 0, segments.count);
  const int64_t columns = grad.size(1);
  Tensor result = fresh_tensor(grad, {num_rows, columns});
  dispatch_storage(op, "grad", grad, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    segment_sum_backward(data_of<Scalar>(grad), segments, num_rows, columns, mean,
                         mutable_data_of<Scalar>(result), thread_count());
  });
  return result;
}

std::tuple<Tensor, Tensor> max(const Tensor& values, const Tensor& order, const Tensor& offsets,
                               bool keep_rows) {
  const char* op = "segment_max";
  check_cpu(op, "values", values, values.scalar_type(), 2);
  const Segments segments = checked_segments(op, order, offsets, values.size(0));
  const int64_t columns = values.size(1);
  Tensor maximum = fresh_tensor(values, {segments.count, columns});
  Tensor row =
      torch::stable::new_empty(values, {keep_rows ? segments.count : 0, columns}, ScalarType::Int);
  dispatch_storage(op, "values", values, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    segment_max(data_of<Scalar>(values), segments, columns, mutable_data_of<Scalar>(maximum),
                keep_rows ? row.mutable_data_ptr<int32_t>() : nullptr, thread_count());
  });
  return {maximum, row};
}

Tensor max_backward(const Tensor& grad, const Tensor& row_of_maximum, int64_t num_rows) {
  const char* op = "segment_max_backward";
  check_cpu(op, "grad", grad, grad.scalar_type(), 2);
  check_cpu(op, "row_of_maximum", row_of_maximum, ScalarType::Int, 2);
  const int64_t segments = grad.size(0);
  const int64_t columns = grad.size(1);
  check_size(op, "row_of_maximum", row_of_maximum, 0, segments);
  check_size(op, "row_of_maximum", row_of_maximum, 1, columns);
  const int32_t* row = row_of_maximum.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < segments * columns; ++i) {
    STD_TORCH_CHECK(row[i] < num_rows, op, ": row_of_maximum must be < ", num_rows, ", got ",
                    row[i]);
  }
  Tensor result = fresh_tensor(grad, {num_rows, columns});
  dispatch_storage(op, "grad", grad, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    segment_max_backward(data_of<Scalar>(grad), row, segments, num_rows, columns,
                         mutable_data_of<Scalar>(result), thread_count());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("segment_sum", TORCH_BOX(&sum));
  m.impl("segment_sum_backward", TORCH_BOX(&sum_backward));
  m.impl("segment_max", TORCH_BOX(&max));
  m.impl("segment_max_backward", TORCH_BOX(&max_backward));
}

}  // namespace perception3d
