#include "cuda/scattered_linear_attention.h"

#include "binding/cuda/device.h"
#include "binding/linear_attention.h"

namespace perception3d {
namespace {

void check_inputs(const char* op, DeviceCall& call, const LinearAttentionTensors& tensors) {
  tensors.check(op);
  const ScalarType dtype = tensors.query.scalar_type();
  call.check_view("query", tensors.query, dtype, 3);
  call.check_view("key", tensors.key, dtype, 3);
  call.check_view("value", tensors.value, dtype, 3);
  call.check_input("offsets", tensors.offsets, ScalarType::Long, 1);
  if (tensors.order.has_value()) call.check_input("order", *tensors.order, ScalarType::Long, 1);
  const int64_t windows = tensors.offsets.size(0) - 1;
  STD_TORCH_CHECK(windows > 0 || tensors.query.size(0) == 0, op, ": offsets must run from 0 to ",
                  tensors.query.size(0), ", got 0 to 0");
}

template <typename Scalar>
Compute<Scalar>* workspace_of(const char* op, DeviceCall& call,
                              const LinearAttention<Scalar>& attention, int64_t rows,
                              bool backward) {
  const int64_t bytes = cuda::linear_attention_workspace_bytes(attention, rows, backward);
  STD_TORCH_CHECK(bytes >= 0, op, ": widths of ", attention.key_width, " and ",
                  attention.value_width,
                  " need more shared memory than a block can have (about 128 and 128)");
  return call.workspace<Compute<Scalar>>(bytes / static_cast<int64_t>(sizeof(Compute<Scalar>)));
}

Tensor forward_checked(const char* op, const LinearAttentionTensors& tensors) {
  const Tensor& query = tensors.query;
  DeviceCall call(op, query);
  check_inputs(op, call, tensors);
  const int64_t rows = query.size(0), heads = query.size(1), width = tensors.value.size(2);
  Tensor output = call.allocate({rows, heads, width}, query.scalar_type());
  if (output.numel() == 0) return output;
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const LinearAttention<Scalar> attention = tensors.arguments<Scalar>();
    auto* workspace = workspace_of(op, call, attention, rows, false);
    call.check_status(cuda::scattered_linear_attention(
        attention, rows, {mutable_data_of<Scalar>(output), heads * width, width}, workspace,
        call.stream()));
  });
  return output;
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& offsets,
               const std::optional<Tensor>& order, double epsilon) {
  return forward_checked("scattered_linear_attention",
                         {query, key, value, offsets, order, epsilon});
}

Tensor forward_qkv(const Tensor& qkv, const Tensor& offsets, const std::optional<Tensor>& order,
                   double epsilon) {
  const char* op = "scattered_linear_attention_qkv";
  const QkvParts parts(op, qkv);
  return forward_checked(op, {parts.query, parts.key, parts.value, offsets, order, epsilon});
}

Tensor backward(const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value,
                const Tensor& offsets, const std::optional<Tensor>& order, double epsilon) {
  const char* op = "scattered_linear_attention_backward";
  const LinearAttentionTensors tensors{query, key, value, offsets, order, epsilon};
  DeviceCall call(op, query);
  check_inputs(op, call, tensors);
  check_grad(op, grad, tensors);
  call.check_view("grad", grad, query.scalar_type(), 3);
  const int64_t rows = query.size(0), heads = query.size(1);
  const int64_t d = query.size(2), e = value.size(2);
  Tensor result = call.allocate({rows, heads * (2 * d + e)}, query.scalar_type());
  if (result.numel() == 0) return result;
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const LinearAttention<Scalar> attention = tensors.arguments<Scalar>();
    auto* workspace = workspace_of(op, call, attention, rows, true);
    call.check_status(cuda::scattered_linear_attention_backward(
        attention, rows, head_rows<Scalar>(grad), columns_of<Scalar>(result, 0, d),
        columns_of<Scalar>(result, heads * d, d), columns_of<Scalar>(result, 2 * heads * d, e),
        workspace, call.stream()));
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("scattered_linear_attention", TORCH_BOX(&forward));
  m.impl("scattered_linear_attention_qkv", TORCH_BOX(&forward_qkv));
  m.impl("scattered_linear_attention_backward", TORCH_BOX(&backward));
}

}  // namespace perception3d
