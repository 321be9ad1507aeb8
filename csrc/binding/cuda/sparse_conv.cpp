#include "cuda/sparse_conv.h"

#include <optional>
#include <tuple>

#include "binding/cuda/device.h"
#include "binding/sparse_conv.h"

namespace perception3d {
namespace {

struct OnDevice {
  static Tensor convolve(const char* op, const SparseConvTensors& tensors,
                         const std::optional<Tensor>& bias) {
    DeviceCall call(op, tensors.features);
    tensors.check(op, call);
    tensors.check_bias(op, call, bias);
    const ConvShape shape = tensors.shape();
    Tensor result = call.allocate({shape.rows, shape.out_channels}, tensors.dtype());
    dispatch_storage(op, "features", tensors.features, [&](auto* scalar) {
      using Scalar = std::remove_pointer_t<decltype(scalar)>;
      call.check_status(cuda::sparse_conv(
          shape, data_of<Scalar>(tensors.features), data_of<int32_t>(tensors.inputs.rows),
          tensors.weights<Scalar>(), bias.has_value() ? data_of<Scalar>(*bias) : nullptr,
          mutable_data_of<Scalar>(result), call.stream()));
    });
    return result;
  }

  static std::tuple<Tensor, Tensor> go_back(const char* op, const Tensor& grad,
                                            const SparseConvTensors& tensors, bool needs_features,
                                            bool needs_weight) {
    DeviceCall call(op, grad);
    tensors.check(op, call);
    tensors.check_grad(op, call, grad);
    const ConvShape shape = tensors.shape();
    Tensor grad_features =
        call.allocate({needs_features ? shape.inputs : 0, shape.in_channels}, tensors.dtype());
    Tensor grad_weight = call.allocate(
        {needs_weight ? shape.taps : 0, shape.in_channels, shape.out_channels}, tensors.dtype());
    dispatch_storage(op, "grad", grad, [&](auto* scalar) {
      using Scalar = std::remove_pointer_t<decltype(scalar)>;
      if (needs_features) {
        call.check_status(cuda::sparse_conv<Scalar>(
            transposed(shape), data_of<Scalar>(grad), data_of<int32_t>(tensors.outputs.rows),
            tensors.weights_back<Scalar>(), nullptr, mutable_data_of<Scalar>(grad_features),
            call.stream()));
      }
      if (needs_weight) {
        auto* workspace =
            call.workspace<Compute<Scalar>>(cuda::sparse_conv_weight_workspace(shape));
        call.check_status(cuda::sparse_conv_weight_backward(
            shape, data_of<Scalar>(tensors.features), data_of<Scalar>(grad),
            data_of<int32_t>(tensors.inputs.rows), mutable_data_of<Scalar>(grad_weight), workspace,
            call.stream()));
      }
    });
    return {grad_features, grad_weight};
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  using Operators = SparseConvOperators<OnDevice>;
  m.impl("subm_conv", TORCH_BOX(&Operators::subm_conv));
  m.impl("subm_conv_backward", TORCH_BOX(&Operators::subm_conv_backward));
  m.impl("sparse_conv", TORCH_BOX(&Operators::sparse_conv));
  m.impl("sparse_conv_backward", TORCH_BOX(&Operators::sparse_conv_backward));
}

}  // namespace perception3d
