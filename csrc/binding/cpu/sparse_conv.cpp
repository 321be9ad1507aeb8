#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "binding/storage_types.h"
#include "common/check.h"
#include "cpu/subm_conv.h"

namespace perception3d {
namespace {

int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

// features (N, Cin), inputs (M, K), outputs (N, K), weight (K, Cin, Cout).
ConvShape checked_shape(const char* op, const Tensor& features, const Tensor& inputs,
                        const Tensor& outputs, const Tensor& weight) {
  check_cpu(op, "features", features, features.scalar_type(), 2);
  check_cpu(op, "inputs", inputs, ScalarType::Int, 2);
  check_cpu(op, "outputs", outputs, ScalarType::Int, 2);
  STD_TORCH_CHECK(weight.is_cpu() && weight.dim() == 3, op, ": weight must be (K, Cin, Cout)");
  STD_TORCH_CHECK(weight.scalar_type() == features.scalar_type(), op,
                  ": weight must have the dtype of the features");
  const ConvShape shape{inputs.size(0), inputs.size(1), features.size(1), weight.size(2),
                        features.size(0)};
  STD_TORCH_CHECK(shape.rows < INT32_MAX && shape.inputs < INT32_MAX, op,
                  ": there must be fewer than 2^31 - 1 voxels");
  check_size(op, "outputs", outputs, 0, shape.inputs);
  check_size(op, "outputs", outputs, 1, shape.taps);
  check_size(op, "weight", weight, 0, shape.taps);
  check_size(op, "weight", weight, 1, shape.in_channels);
  return shape;
}

template <typename Scalar>
ConvWeight<Scalar> weight_view(const Tensor& weight) {
  return {data_of<Scalar>(weight), weight.stride(0), weight.stride(1), weight.stride(2)};
}

void check_rows(const char* op, const char* name, int64_t bad_row, int64_t rows) {
  STD_TORCH_CHECK(bad_row < 0, op, ": ", name, " must be -1 or in 0..", rows - 1,
                  ", which they are not in row ", bad_row);
}

Tensor conv(const Tensor& features, const Tensor& inputs, const Tensor& outputs,
            const Tensor& weight, std::optional<Tensor> bias) {
  const char* op = "sparse_conv";
  const ConvShape shape = checked_shape(op, features, inputs, outputs, weight);
  if (bias.has_value()) {
    check_cpu(op, "bias", *bias, features.scalar_type(), 1);
    check_size(op, "bias", *bias, 0, shape.out_channels);
  }
  Tensor result = torch::stable::new_empty(features, {shape.rows, shape.out_channels});
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const int64_t bad_row =
        subm_conv(shape, data_of<Scalar>(features), inputs.const_data_ptr<int32_t>(),
                  weight_view<Scalar>(weight), bias.has_value() ? data_of<Scalar>(*bias) : nullptr,
                  mutable_data_of<Scalar>(result), thread_count());
    check_rows(op, "inputs", bad_row, shape.inputs);
  });
  return result;
}

std::tuple<Tensor, Tensor> conv_backward(const Tensor& grad, const Tensor& features,
                                         const Tensor& inputs, const Tensor& outputs,
                                         const Tensor& weight, bool needs_features,
                                         bool needs_weight) {
  const char* op = "sparse_conv_backward";
  const ConvShape shape = checked_shape(op, features, inputs, outputs, weight);
  check_cpu(op, "grad", grad, features.scalar_type(), 2);
  check_size(op, "grad", grad, 0, shape.rows);
  check_size(op, "grad", grad, 1, shape.out_channels);
  Tensor grad_features =
      torch::stable::new_empty(grad, {needs_features ? shape.inputs : 0, shape.in_channels});
  Tensor grad_weight = torch::stable::new_empty(
      grad, {needs_weight ? shape.taps : 0, shape.in_channels, shape.out_channels});
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    if (needs_features) {
      const int64_t bad_row = subm_conv<Scalar>(
          transposed(shape), data_of<Scalar>(grad), outputs.const_data_ptr<int32_t>(),
          transposed(weight_view<Scalar>(weight)), nullptr, mutable_data_of<Scalar>(grad_features),
          thread_count());
      check_rows(op, "outputs", bad_row, shape.rows);
    }
    if (needs_weight) {
      const int64_t bad_row = subm_conv_weight_gradient(
          shape, data_of<Scalar>(features), data_of<Scalar>(grad), inputs.const_data_ptr<int32_t>(),
          mutable_data_of<Scalar>(grad_weight), thread_count());
      check_rows(op, "inputs", bad_row, shape.inputs);
    }
  });
  return {grad_features, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("sparse_conv", TORCH_BOX(&conv));
  m.impl("sparse_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
