#include "cpu/selective_scan.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/sequence_contents.h"
#include "binding/selective_scan.h"

namespace perception3d {
namespace {

using Optional = std::optional<Tensor>;

// A tensor like `rows`, or an empty one where there is nothing to hold.
Tensor new_rows(const Tensor& rows, bool wanted, int64_t columns) {
  return fresh_tensor(rows, {wanted ? rows.size(0) : 0, columns});
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
  STD_TORCH_CHECK(u.is_cpu(), op, ": u must lie on the CPU");
  tensors.check(op);
  const int64_t channels = tensors.channels(), states = tensors.states();
  Tensor y = new_rows(u, true, channels);
  Tensor checkpoints = fresh_tensor(A, {keep_checkpoints ? tensors.chunks() : 0, states, channels});
  Tensor state = fresh_tensor(A, {keep_state ? offsets.size(0) - 1 : 0, channels, states});
  dispatch_storage(op, "u", u, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Number = Compute<Scalar>;
    const ScanInputs<Scalar> inputs = tensors.arguments<Scalar>(op);
    check_contents(op, inputs.shape.layout);
    const ScanResults<Scalar> results{
        mutable_data_of<Scalar>(y),
        keep_checkpoints ? mutable_data_of<Number>(checkpoints) : nullptr,
        keep_state ? mutable_data_of<Number>(state) : nullptr};
    selective_scan(inputs, results, thread_count());
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
  STD_TORCH_CHECK(u.is_cpu(), op, ": u must lie on the CPU");
  tensors.check(op);
  const int64_t channels = tensors.channels(), states = tensors.states();
  tensors.check_results(op, grad, checkpoints);

  Tensor grad_u = new_rows(u, true, channels), grad_delta = new_rows(u, true, channels);
  Tensor grad_B = new_rows(u, true, states), grad_C = new_rows(u, true, states);
  Tensor grad_gate = new_rows(u, gate.has_value(), channels);
  Tensor grad_A = fresh_tensor(A, {channels, states});
  Tensor grad_skip = fresh_tensor(A, {skip.has_value() ? channels : 0});
  Tensor grad_bias = fresh_tensor(A, {delta_bias.has_value() ? channels : 0});
  dispatch_storage(op, "u", u, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Number = Compute<Scalar>;
    const ScanInputs<Scalar> inputs = tensors.arguments<Scalar>(op);
    check_contents(op, inputs.shape.layout);
    const ScanGradients<Scalar> gradients{
        mutable_data_of<Scalar>(grad_u),
        mutable_data_of<Scalar>(grad_delta),
        mutable_data_of<Scalar>(grad_B),
        mutable_data_of<Scalar>(grad_C),
        gate.has_value() ? mutable_data_of<Scalar>(grad_gate) : nullptr,
        mutable_data_of<Number>(grad_A),
        skip.has_value() ? mutable_data_of<Number>(grad_skip) : nullptr,
        delta_bias.has_value() ? mutable_data_of<Number>(grad_bias) : nullptr};
    selective_scan_backward(inputs, rows_of<Scalar>(grad), data_of<Number>(checkpoints), gradients,
                            thread_count());
  });
  return {grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_gate, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("selective_scan", TORCH_BOX(&scan));
  m.impl("selective_scan_backward", TORCH_BOX(&scan_backward));
}

}  // namespace perception3d
