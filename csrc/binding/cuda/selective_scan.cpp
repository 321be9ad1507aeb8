#include "cuda/selective_scan.h"

#include <tuple>

#include "binding/cuda/rows.h"
#include "binding/selective_scan.h"

namespace perception3d {
namespace {

using Optional = std::optional<Tensor>;

// Checks all tensors of a call on their device.
void check_tensors(const char* op, DeviceCall& call, const ScanTensors& tensors) {
  tensors.check(op);
  const ScalarType dtype = tensors.u.scalar_type();
  check_row_type(op, "u", tensors.u);
  STD_TORCH_CHECK(tensors.states() <= cuda::kMostScanStates, op, ": A must have at most ",
                  cuda::kMostScanStates, " states on this device, got ", tensors.states());
  call.check_view("u", tensors.u, dtype, 2);
  call.check_view("delta", tensors.delta, dtype, 2);
  call.check_view("B", tensors.B, dtype, 2);
  call.check_view("C", tensors.C, dtype, 2);
  if (tensors.gate.has_value()) call.check_view("gate", *tensors.gate, dtype, 2);
  call.check_input("A", tensors.A, ScalarType::Float, 2);
  if (tensors.skip.has_value()) call.check_input("skip", *tensors.skip, ScalarType::Float, 1);
  if (tensors.delta_bias.has_value()) {
    call.check_input("delta_bias", *tensors.delta_bias, ScalarType::Float, 1);
  }
  call.check_input("offsets", tensors.offsets, ScalarType::Long, 1);
  if (tensors.order.has_value()) call.check_input("order", *tensors.order, ScalarType::Long, 1);
}

std::tuple<Tensor, Tensor, Tensor> scan(const Tensor& u, const Tensor& delta, const Tensor& A,
                                        const Tensor& B, const Tensor& C, const Tensor& offsets,
                                        const Optional& skip, const Optional& gate,
                                        const Optional& delta_bias, bool delta_softplus,
                                        const Optional& order, bool reverse, bool keep_checkpoints,
                                        bool keep_state) {
  const char* op = "selective_scan";
  const ScanTensors tensors{u,          delta,          A,     B,      C, offsets, skip, gate,
                            delta_bias, delta_softplus, order, reverse};
  DeviceCall call(op, u);
  check_tensors(op, call, tensors);
  const int64_t channels = tensors.channels(), states = tensors.states();
  Tensor y = call.allocate({tensors.length(), channels}, u.scalar_type());
  Tensor checkpoints =
      call.allocate({keep_checkpoints ? tensors.chunks() : 0, states, channels}, ScalarType::Float);
  Tensor state =
      call.allocate({keep_state ? offsets.size(0) - 1 : 0, channels, states}, ScalarType::Float);
  dispatch_rows(u, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const ScanInputs<Scalar> inputs = tensors.arguments<Scalar>(op);
    const ScanResults<Scalar> results{
        mutable_data_of<Scalar>(y),
        keep_checkpoints ? mutable_data_of<float>(checkpoints)
                         : call.workspace<float>(tensors.chunks() * states * channels),
        keep_state ? mutable_data_of<float>(state) : nullptr};
    float* workspace = call.workspace<float>(cuda::scan_workspace_bytes(inputs.shape) / 4);
    call.check_status(cuda::selective_scan(inputs, results, workspace, call.stream()));
  });
  return {y, checkpoints, state};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients scan_backward(const Tensor& grad, const Tensor& u, const Tensor& delta, const Tensor& A,
                        const Tensor& B, const Tensor& C, const Tensor& offsets,
                        const Optional& skip, const Optional& gate, const Optional& delta_bias,
                        bool delta_softplus, const Optional& order, bool reverse,
                        const Tensor& checkpoints) {
  const char* op = "selective_scan_backward";
  const ScanTensors tensors{u,          delta,          A,     B,      C, offsets, skip, gate,
                            delta_bias, delta_softplus, order, reverse};
  DeviceCall call(op, u);
  check_tensors(op, call, tensors);
  const int64_t length = tensors.length();
  const int64_t channels = tensors.channels(), states = tensors.states();
  tensors.check_results(op, grad, checkpoints);
  call.check_view("grad", grad, u.scalar_type(), 2);
  call.check_input("checkpoints", checkpoints, ScalarType::Float, 3);

  const ScalarType dtype = u.scalar_type();
  Tensor grad_u = call.allocate({length, channels}, dtype);
  Tensor grad_delta = call.allocate({length, channels}, dtype);
  Tensor grad_B = call.allocate({length, states}, dtype);
  Tensor grad_C = call.allocate({length, states}, dtype);
  Tensor grad_gate = call.allocate({gate.has_value() ? length : 0, channels}, dtype);
  Tensor grad_A = call.allocate({channels, states}, ScalarType::Float);
  Tensor grad_skip = call.allocate({skip.has_value() ? channels : 0}, ScalarType::Float);
  Tensor grad_bias = call.allocate({delta_bias.has_value() ? channels : 0}, ScalarType::Float);
  dispatch_rows(u, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const ScanInputs<Scalar> inputs = tensors.arguments<Scalar>(op);
    const ScanGradients<Scalar> gradients{
        mutable_data_of<Scalar>(grad_u),
        mutable_data_of<Scalar>(grad_delta),
        mutable_data_of<Scalar>(grad_B),
        mutable_data_of<Scalar>(grad_C),
        gate.has_value() ? mutable_data_of<Scalar>(grad_gate) : nullptr,
        mutable_data_of<float>(grad_A),
        skip.has_value() ? mutable_data_of<float>(grad_skip) : nullptr,
        delta_bias.has_value() ? mutable_data_of<float>(grad_bias) : nullptr};
    float* workspace = call.workspace<float>(cuda::scan_backward_workspace_bytes(inputs.shape) / 4);
    call.check_status(cuda::selective_scan_backward(inputs, rows_of<Scalar>(grad),
                                                    data_of<float>(checkpoints), gradients,
                                                    workspace, call.stream()));
  });
  return {grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_gate, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("selective_scan", TORCH_BOX(&scan));
  m.impl("selective_scan_backward", TORCH_BOX(&scan_backward));
}

}  // namespace perception3d
