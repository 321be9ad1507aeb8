#include "cuda/depthwise_conv.h"

#include <tuple>
#include <vector>

#include "binding/cuda/device.h"
#include "binding/depthwise_conv.h"

namespace perception3d {
namespace {

Tensor conv(const Tensor& features, std::vector<Tensor> neighbours, std::vector<Tensor> weights,
            std::vector<int64_t> first_channels, bool residual) {
  const char* op = "depthwise_conv";
  DeviceCall call(op, features);
  Tensor result = call.allocate({features.size(0), features.size(1)}, features.scalar_type());
  dispatch_storage(op, "features", features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv = depthwise_conv_of<Scalar>(op, call, features, neighbours, weights,
                                                first_channels, residual);
    call.check_status(cuda::depthwise_conv(conv, data_of<Scalar>(features),
                                           mutable_data_of<Scalar>(result), call.stream()));
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
  DeviceCall call(op, grad);
  check_depthwise_grad(op, call, grad, features);
  Tensor grad_features =
      call.allocate({needs_features ? grad.size(0) : 0, grad.size(1)}, grad.scalar_type());
  std::vector<Tensor> grad_weights;
  for (const Tensor& weight : weights) {
    const int64_t taps = needs_weights ? weight.size(0) : 0;
    grad_weights.push_back(call.allocate({taps, weight.size(1)}, grad.scalar_type()));
  }
  dispatch_storage(op, "grad", grad, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv = depthwise_conv_of<Scalar>(op, call, features, neighbours, weights,
                                                first_channels, residual);
    if (needs_features) {
      call.check_status(cuda::depthwise_conv_features_backward(
          conv, data_of<Scalar>(grad), mutable_data_of<Scalar>(grad_features), call.stream()));
    }
    if (needs_weights) {
      std::vector<Scalar*> targets;
      for (Tensor& target : grad_weights) targets.push_back(mutable_data_of<Scalar>(target));
      auto* workspace =
          call.workspace<Compute<Scalar>>(cuda::depthwise_weight_workspace<Scalar>(conv));
      call.check_status(cuda::depthwise_conv_weight_backward(conv, data_of<Scalar>(grad),
                                                             data_of<Scalar>(features), targets,
                                                             workspace, call.stream()));
    }
  });
  return {grad_features, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("depthwise_conv", TORCH_BOX(&conv));
  m.impl("depthwise_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
