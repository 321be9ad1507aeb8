#include "cuda/segment_reduce.h"

#include <tuple>

#include "binding/cuda/device.h"

namespace perception3d {
namespace {

cuda::Segments checked_segments(const char* op, DeviceCall& call, const Tensor& order,
                                const Tensor& offsets, int64_t num_rows) {
  call.check_input("order", order, ScalarType::Long, 1);
  call.check_input("offsets", offsets, ScalarType::Long, 1);
  STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
  STD_TORCH_CHECK(num_rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 rows");
  STD_TORCH_CHECK(order.size(0) <= num_rows, op, ": order must name each of the ", num_rows,
                  " rows at most once, got ", order.size(0));
  return {data_of<int64_t>(order), data_of<int64_t>(offsets), offsets.size(0) - 1, order.size(0),
          num_rows};
}

Tensor sum(const Tensor& values, const Tensor& order, const Tensor& offsets, bool mean) {
  const char* op = "segment_sum";
  DeviceCall call(op, values);
  call.check_input("values", values, values.scalar_type(), 2);
  const auto segments = checked_segments(op, call, order, offsets, values.size(0));
  const int64_t columns = values.size(1);
  Tensor result = call.allocate({segments.count, columns}, values.scalar_type());
  dispatch_storage(op, "values", values, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Total = Compute<Scalar>;
    const int64_t bytes = cuda::segment_workspace_bytes<Scalar>(segments.places, columns);
    Total* workspace = call.workspace<Total>(bytes / static_cast<int64_t>(sizeof(Total)));
    call.check_status(cuda::segment_sum(data_of<Scalar>(values), segments, columns, mean,
                                        mutable_data_of<Scalar>(result), workspace, call.stream()));
  });
  return result;
}

Tensor sum_backward(const Tensor& grad, const Tensor& order, const Tensor& offsets,
                    int64_t num_rows, bool mean) {
  const char* op = "segment_sum_backward";
  DeviceCall call(op, grad);
  call.check_input("grad", grad, grad.scalar_type(), 2);
  const auto segments = checked_segments(op, call, order, offsets, num_rows);
  check_size(op, "grad", grad, 0, segments.count);
  const int64_t columns = grad.size(1);
  Tensor result = call.allocate({num_rows, columns}, grad.scalar_type());
  dispatch_storage(op, "grad", grad, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    call.check_status(cuda::segment_sum_backward(data_of<Scalar>(grad), segments, columns, mean,
                                                 mutable_data_of<Scalar>(result), call.stream()));
  });
  return result;
}

std::tuple<Tensor, Tensor> max(const Tensor& values, const Tensor& order, const Tensor& offsets,
                               bool keep_rows) {
  const char* op = "segment_max";
  DeviceCall call(op, values);
  call.check_input("values", values, values.scalar_type(), 2);
  const auto segments = checked_segments(op, call, order, offsets, values.size(0));
  const int64_t columns = values.size(1);
  Tensor maximum = call.allocate({segments.count, columns}, values.scalar_type());
  Tensor row = call.allocate({keep_rows ? segments.count : 0, columns}, ScalarType::Int);
  dispatch_storage(op, "values", values, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Total = Compute<Scalar>;
    const int64_t bytes = cuda::segment_workspace_bytes<Scalar>(segments.places, columns);
    Total* workspace = call.workspace<Total>(bytes / static_cast<int64_t>(sizeof(Total)));
    call.check_status(cuda::segment_max(
        data_of<Scalar>(values), segments, columns, mutable_data_of<Scalar>(maximum),
        keep_rows ? mutable_data_of<int32_t>(row) : nullptr, workspace, call.stream()));
  });
  return {maximum, row};
}

Tensor max_backward(const Tensor& grad, const Tensor& row_of_maximum, int64_t num_rows) {
  const char* op = "segment_max_backward";
  DeviceCall call(op, grad);
  call.check_input("grad", grad, grad.scalar_type(), 2);
  call.check_input("row_of_maximum", row_of_maximum, ScalarType::Int, 2);
  const int64_t segments = grad.size(0), columns = grad.size(1);
  check_size(op, "row_of_maximum", row_of_maximum, 0, segments);
  check_size(op, "row_of_maximum", row_of_maximum, 1, columns);
  Tensor result = call.allocate({num_rows, columns}, grad.scalar_type());
  dispatch_storage(op, "grad", grad, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    call.check_status(cuda::segment_max_backward(
        data_of<Scalar>(grad), data_of<int32_t>(row_of_maximum), segments, num_rows, columns,
        mutable_data_of<Scalar>(result), call.stream()));
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("segment_sum", TORCH_BOX(&sum));
  m.impl("segment_sum_backward", TORCH_BOX(&sum_backward));
  m.impl("segment_max", TORCH_BOX(&max));
  m.impl("segment_max_backward", TORCH_BOX(&max_backward));
}

}  // namespace perception3d
