#include "cuda/causal_conv1d.h"

#include <tuple>

#include "binding/causal_conv1d.h"
#include "binding/cuda/rows.h"

namespace perception3d {
namespace {

void check_tensors(const char* op, DeviceCall& call, const ConvTensors& tensors) {
  tensors.check(op);
  check_row_type(op, "x", tensors.x);
  STD_TORCH_CHECK(tensors.weight.size(1) <= cuda::kMostConvTaps, op, ": weight must have at most ",
                  cuda::kMostConvTaps, " taps on this device, got ", tensors.weight.size(1));
  call.check_view("x", tensors.x, tensors.x.scalar_type(), 2);
  call.check_input("weight", tensors.weight, ScalarType::Float, 2);
  if (tensors.bias.has_value()) call.check_input("bias", *tensors.bias, ScalarType::Float, 1);
  call.check_input("offsets", tensors.offsets, ScalarType::Long, 1);
  if (tensors.order.has_value()) call.check_input("order", *tensors.order, ScalarType::Long, 1);
}

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
            const Tensor& offsets, bool silu, const std::optional<Tensor>& order, bool reverse) {
  const char* op = "causal_conv1d";
  const ConvTensors tensors{x, weight, bias, offsets, silu, order, reverse};
  DeviceCall call(op, x);
  check_tensors(op, call, tensors);
  Tensor y = call.allocate({tensors.length(), tensors.channels()}, x.scalar_type());
  dispatch_rows(x, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    call.check_status(cuda::causal_conv1d(tensors.arguments<Scalar>(op), mutable_data_of<Scalar>(y),
                                          call.stream()));
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> conv_backward(const Tensor& grad, const Tensor& x,
                                                 const Tensor& weight,
                                                 const std::optional<Tensor>& bias,
                                                 const Tensor& offsets, bool silu,
                                                 const std::optional<Tensor>& order, bool reverse) {
  const char* op = "causal_conv1d_backward";
  const ConvTensors tensors{x, weight, bias, offsets, silu, order, reverse};
  DeviceCall call(op, x);
  check_tensors(op, call, tensors);
  const int64_t length = tensors.length(), channels = tensors.channels();
  check_rows(op, "grad", grad, x, length, channels);
  call.check_view("grad", grad, x.scalar_type(), 2);
  Tensor grad_x = call.allocate({length, channels}, x.scalar_type());
  Tensor grad_weight = call.allocate({channels, weight.size(1)}, ScalarType::Float);
  Tensor grad_bias = call.allocate({bias.has_value() ? channels : 0}, ScalarType::Float);
  dispatch_rows(x, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    float* workspace =
        call.workspace<float>(cuda::conv_backward_workspace_bytes(length, channels) / 4);
    call.check_status(cuda::causal_conv1d_backward(
        tensors.arguments<Scalar>(op), rows_of<Scalar>(grad), mutable_data_of<Scalar>(grad_x),
        mutable_data_of<float>(grad_weight),
        bias.has_value() ? mutable_data_of<float>(grad_bias) : nullptr, workspace, call.stream()));
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("causal_conv1d", TORCH_BOX(&conv));
  m.impl("causal_conv1d_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
