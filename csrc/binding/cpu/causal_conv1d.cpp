#include "cpu/causal_conv1d.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "binding/causal_conv1d.h"
#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/sequence_contents.h"

namespace perception3d {
namespace {

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
            const Tensor& offsets, bool silu, const std::optional<Tensor>& order, bool reverse) {
  const char* op = "causal_conv1d";
  STD_TORCH_CHECK(x.is_cpu(), op, ": x must lie on the CPU");
  const ConvTensors tensors{x, weight, bias, offsets, silu, order, reverse};
  tensors.check(op);
  Tensor y = fresh_tensor(x, {tensors.length(), tensors.channels()});
  dispatch_storage(op, "x", x, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const CausalConv<Scalar> conv = tensors.arguments<Scalar>(op);
    check_contents(op, conv.layout);
    causal_conv1d(conv, mutable_data_of<Scalar>(y), thread_count());
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> conv_backward(const Tensor& grad, const Tensor& x,
                                                 const Tensor& weight,
                                                 const std::optional<Tensor>& bias,
                                                 const Tensor& offsets, bool silu,
                                                 const std::optional<Tensor>& order, bool reverse) {
  const char* op = "causal_conv1d_backward";
  STD_TORCH_CHECK(x.is_cpu(), op, ": x must lie on the CPU");
  const ConvTensors tensors{x, weight, bias, offsets, silu, order, reverse};
  tensors.check(op);
  const int64_t length = tensors.length(), channels = tensors.channels();
  check_rows(op, "grad", grad, x, length, channels);
  Tensor grad_x = fresh_tensor(x, {length, channels});
  Tensor grad_weight = fresh_tensor(weight, {channels, weight.size(1)});
  Tensor grad_bias = fresh_tensor(weight, {bias.has_value() ? channels : 0});
  dispatch_storage(op, "x", x, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Number = Compute<Scalar>;
    const CausalConv<Scalar> conv = tensors.arguments<Scalar>(op);
    check_contents(op, conv.layout);
    causal_conv1d_backward(conv, rows_of<Scalar>(grad), mutable_data_of<Scalar>(grad_x),
                           mutable_data_of<Number>(grad_weight),
                           bias.has_value() ? mutable_data_of<Number>(grad_bias) : nullptr,
                           thread_count());
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("causal_conv1d", TORCH_BOX(&conv));
  m.impl("causal_conv1d_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
