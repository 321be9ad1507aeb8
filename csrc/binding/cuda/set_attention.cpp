#include "cuda/set_attention.h"

#include <tuple>

#include "binding/cuda/device.h"
#include "binding/set_attention.h"

namespace perception3d {
namespace {

// Contents of order and offsets are looked at in P3D_DEBUG builds only.
void check_tensors(const char* op, DeviceCall& call, const SetAttentionTensors& tensors) {
  const ScalarType dtype = tensors.query.scalar_type();
  call.check_view("query", tensors.query, dtype, 3);
  call.check_view("key", tensors.key, dtype, 3);
  call.check_view("value", tensors.value, dtype, 3);
  call.check_input("order", tensors.order, ScalarType::Long, 1);
  call.check_input("offsets", tensors.offsets, ScalarType::Long, 1);
  tensors.check(op);
  STD_TORCH_CHECK(tensors.offsets.size(0) >= 2 || tensors.query.size(0) == 0, op,
                  ": offsets must run from 0 to ", tensors.query.size(0), ", got one number");
  STD_TORCH_CHECK(tensors.query.size(2) <= cuda::kWidestHead, op, ": heads may have up to ",
                  cuda::kWidestHead, " numbers on CUDA, got ", tensors.query.size(2));
}

std::tuple<Tensor, Tensor> forward(const char* op, const SetAttentionTensors& tensors,
                                   bool keep_log_sum) {
  const Tensor& query = tensors.query;
  DeviceCall call(op, query);
  check_tensors(op, call, tensors);
  const int64_t num_rows = query.size(0), heads = query.size(1);
  Tensor result = call.allocate({num_rows, heads, query.size(2)}, query.scalar_type());
  Tensor log_sum = call.allocate({keep_log_sum ? num_rows : 0, heads}, sum_dtype(query));
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    call.check_status(cuda::set_attention(
        tensors.rows<Scalar>(), tensors.sets(), num_rows, mutable_data_of<Scalar>(result),
        keep_log_sum ? mutable_data_of<Compute<Scalar>>(log_sum) : nullptr, call.stream()));
  });
  return {result, log_sum};
}

Tensor backward(const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value,
                const Tensor& result, const Tensor& log_sum, const Tensor& order,
                const Tensor& offsets) {
  const char* op = "set_attention_backward";
  DeviceCall call(op, query);
  const SetAttentionTensors tensors{query, key, value, order, offsets};
  check_tensors(op, call, tensors);
  call.check_view("grad", grad, query.scalar_type(), 3);
  call.check_view("result", result, query.scalar_type(), 3);
  call.check_input("log_sum", log_sum, sum_dtype(query), 2);
  tensors.check_results(op, grad, result, log_sum);
  const int64_t num_rows = query.size(0), heads = query.size(1), width = query.size(2);
  Tensor gradients = call.allocate({num_rows, 3 * heads * width}, query.scalar_type());
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    auto* workspace = call.workspace<Compute<Scalar>>(num_rows * heads);
    call.check_status(cuda::set_attention_backward(
        head_rows<Scalar>(grad), tensors.rows<Scalar>(), head_rows<Scalar>(result),
        data_of<Compute<Scalar>>(log_sum), tensors.sets(), num_rows,
        gradients_in<Scalar>(gradients, width), workspace, call.stream()));
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("set_attention", TORCH_BOX(&attend<&forward>));
  m.impl("set_attention_qk", TORCH_BOX(&attend_qk<&forward>));
  m.impl("set_attention_backward", TORCH_BOX(&backward));
}

}  // namespace perception3d
