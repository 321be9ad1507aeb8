#include "cpu/depthwise_conv.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/depthwise_conv.h"
#include "binding/storage_types.h"

namespace perception3d {
namespace {

void check_fault(const char* op, const NeighbourFault& fault, int64_t rows) {
  STD_TORCH_CHECK(fault.group < 0, op, ": neighbours must be -1 or in 0..", rows - 1, ", table ",
                  fault.group, " is not in row ", fault.row);
}

Tensor conv(const Tensor& features, std::vector<Tensor> neighbours, std::vector<Tensor> weights,
            std::vector<int64_t> first_channels, bool residual) {
  const char* op = "depthwise_conv";
  const CpuCall call{op};
  Tensor result = fresh_tensor(features, {features.size(0), features.size(1)});
  dispatch_storage(op, "features", features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv = depthwise_conv_of<Scalar>(op, call, features, neighbours, weights,
                                                first_channels, residual);
    const NeighbourFault fault = depthwise_conv(conv, data_of<Scalar>(features),
                                                mutable_data_of<Scalar>(result), thread_count());
    check_fault(op, fault, conv.rows);
  });
  return result;
}

std::tuple<Tensor, std::vector<Tensor>> conv_backward(const Tensor& grad, const Tensor& features,
                                                      std::vector<Tensor> neighbours,
                                                      std::vector<Tensor> weights,
                                                      std::vector<int64_t> first_channels,
                                                      bool residual, bool needs_features,
                                                      bool needs_weights) {
  const char* op = "depthwise_conv_backward";
  const CpuCall call{op};
  check_depthwise_grad(op, call, grad, features);
  Tensor grad_features = fresh_tensor(grad, {needs_features ? grad.size(0) : 0, grad.size(1)});
  std::vector<Tensor> grad_weights;
  for (const Tensor& weight : weights) {
    const int64_t taps = needs_weights ? weight.size(0) : 0;
    grad_weights.push_back(torch::stable::new_empty(weight, {taps, weight.size(1)}));
  }
  dispatch_storage(op, "features", features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv = depthwise_conv_of<Scalar>(op, call, features, neighbours, weights,
                                                first_channels, residual);
    std::vector<Scalar*> targets;
    for (Tensor& target : grad_weights) {
      if (needs_weights) targets.push_back(mutable_data_of<Scalar>(target));
    }
    if (!needs_features && targets.empty()) return;
    const NeighbourFault fault = depthwise_conv_backward(
        conv, data_of<Scalar>(grad), data_of<Scalar>(features),
        needs_features ? mutable_data_of<Scalar>(grad_features) : nullptr, targets, thread_count());
    check_fault(op, fault, conv.rows);
  });
  return {grad_features, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("depthwise_conv", TORCH_BOX(&conv));
  m.impl("depthwise_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
