#include "cuda/subm_conv.h"

#include <optional>
#include <tuple>

#include "binding/cuda/device.h"

namespace perception3d {
namespace {

ConvShape checked_shape(const char* op, DeviceCall& call, const Tensor& features,
                        const Tensor& neighbours, const Tensor& weight) {
  call.check_input("features", features, features.scalar_type(), 2);
  call.check_input("neighbours", neighbours, ScalarType::Int, 2);
  call.check_input("weight", weight, features.scalar_type(), 3);
  const ConvShape shape{features.size(0), neighbours.size(1), features.size(1), weight.size(2),
                        features.size(0)};
  STD_TORCH_CHECK(shape.rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  check_size(op, "neighbours", neighbours, 0, shape.rows);
  check_size(op, "weight", weight, 0, shape.taps);
  check_size(op, "weight", weight, 1, shape.in_channels);
  return shape;
}

Tensor conv(const Tensor& features, const Tensor& neighbours, const Tensor& weight,
            std::optional<Tensor> bias) {
  const char* op = "subm_conv";
  DeviceCall call(op, features);
  const ConvShape shape = checked_shape(op, call, features, neighbours, weight);
  if (bias.has_value()) {
    call.check_input("bias", *bias, features.scalar_type(), 1);
    check_size(op, "bias", *bias, 0, shape.out_channels);
  }
  Tensor result = call.allocate({shape.rows, shape.out_channels}, features.scalar_type());
  dispatch_floating(op, "features", features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    call.check_status(cuda::subm_conv(
        shape, input_pointer<Scalar>(features), input_pointer<int32_t>(neighbours),
        input_pointer<Scalar>(weight), bias.has_value() ? input_pointer<Scalar>(*bias) : nullptr,
        output_pointer<Scalar>(result), call.stream()));
  });
  return result;
}

std::tuple<Tensor, Tensor> conv_backward(const Tensor& grad, const Tensor& features,
                                         const Tensor& neighbours, const Tensor& weight,
                                         bool needs_features, bool needs_weight) {
  const char* op = "subm_conv_backward";
  DeviceCall call(op, grad);
  const ConvShape shape = checked_shape(op, call, features, neighbours, weight);
  call.check_input("grad", grad, features.scalar_type(), 2);
  check_size(op, "grad", grad, 0, shape.rows);
  check_size(op, "grad", grad, 1, shape.out_channels);
  const ScalarType dtype = features.scalar_type();
  Tensor grad_features = call.allocate({needs_features ? shape.rows : 0, shape.in_channels}, dtype);
  Tensor grad_weight =
      call.allocate({needs_weight ? shape.taps : 0, shape.in_channels, shape.out_channels}, dtype);
  const int32_t* table = input_pointer<int32_t>(neighbours);
  dispatch_floating(op, "features", features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    if (needs_features) {
      call.check_status(cuda::subm_conv_features_backward(
          shape, input_pointer<Scalar>(grad), table, input_pointer<Scalar>(weight),
          output_pointer<Scalar>(grad_features), call.stream()));
    }
    if (needs_weight) {
      auto* workspace = call.workspace<Compute<Scalar>>(cuda::subm_conv_weight_workspace(shape));
      call.check_status(cuda::subm_conv_weight_backward(
          shape, input_pointer<Scalar>(features), input_pointer<Scalar>(grad), table,
          output_pointer<Scalar>(grad_weight), workspace, call.stream()));
    }
  });
  return {grad_features, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("subm_conv", TORCH_BOX(&conv));
  m.impl("subm_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
