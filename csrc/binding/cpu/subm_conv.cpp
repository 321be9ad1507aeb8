#include "cpu/subm_conv.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "binding/storage_types.h"
#include "common/check.h"

namespace perception3d {
namespace {

int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

ConvShape checked_shape(const char* op, const Tensor& features, const Tensor& neighbours,
                        const Tensor& weight) {
  check_cpu(op, "features", features, features.scalar_type(), 2);
  check_cpu(op, "neighbours", neighbours, ScalarType::Int, 2);
  STD_TORCH_CHECK(weight.is_cpu() && weight.dim() == 3, op, ": weight must be (K, Cin, Cout)");
  STD_TORCH_CHECK(weight.scalar_type() == features.scalar_type(), op,
                  ": weight must have the dtype of the features");
  const ConvShape shape{features.size(0), neighbours.size(1), features.size(1), weight.size(2),
                        features.size(0)};
  STD_TORCH_CHECK(shape.rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  check_size(op, "neighbours", neighbours, 0, shape.rows);
  check_size(op, "weight", weight, 0, shape.taps);
  check_size(op, "weight", weight, 1, shape.in_channels);
  return shape;
}

template <typename Scalar>
ConvWeight<Scalar> weight_view(const Tensor& weight) {
  return {data_of<Scalar>(weight), weight.stride(0), weight.stride(1), weight.stride(2)};
}

void check_rows(const char* op, int64_t bad_row, int64_t rows) {
  STD_TORCH_CHECK(bad_row < 0, op, ": neighbours must be -1 or in 0..", rows - 1,
                  ", which they are not in row ", bad_row);
}

Tensor conv(const Tensor& features, const Tensor& neighbours, const Tensor& weight,
            std::optional<Tensor> bias) {
  const char* op = "subm_conv";
  const ConvShape shape = checked_shape(op, features, neighbours, weight);
  if (bias.has_value()) {
    check_cpu(op, "bias", *bias, features.scalar_type(), 1);
    check_size(op, "bias", *bias, 0, shape.out_channels);
  }
  Tensor result = torch::stable::new_empty(features, {shape.rows, shape.out_channels});
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const int64_t bad_row =
        subm_conv(shape, data_of<Scalar>(features), neighbours.const_data_ptr<int32_t>(),
                  weight_view<Scalar>(weight), bias.has_value() ? data_of<Scalar>(*bias) : nullptr,
                  mutable_data_of<Scalar>(result), thread_count());
    check_rows(op, bad_row, shape.rows);
  });
  return result;
}

std::tuple<Tensor, Tensor> conv_backward(const Tensor& grad, const Tensor& features,
                                         const Tensor& neighbours, const Tensor& weight,
                                         bool needs_features, bool needs_weight) {
  const char* op = "subm_conv_backward";
  const ConvShape shape = checked_shape(op, features, neighbours, weight);
  check_cpu(op, "grad", grad, features.scalar_type(), 2);
  check_size(op, "grad", grad, 0, shape.rows);
  check_size(op, "grad", grad, 1, shape.out_channels);
  Tensor grad_features =
      torch::stable::new_empty(grad, {needs_features ? shape.rows : 0, shape.in_channels});
  Tensor grad_weight = torch::stable::new_empty(
      grad, {needs_weight ? shape.taps : 0, shape.in_channels, shape.out_channels});
  const int32_t* table = neighbours.const_data_ptr<int32_t>();
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    if (needs_features) {
      const int64_t bad_row =
          subm_conv<Scalar>(transposed(shape), data_of<Scalar>(grad), table,
                            transposed(reversed(weight_view<Scalar>(weight), shape.taps)), nullptr,
                            mutable_data_of<Scalar>(grad_features), thread_count());
      check_rows(op, bad_row, shape.rows);
    }
    if (needs_weight) {
      const int64_t bad_row =
          subm_conv_weight_gradient(shape, data_of<Scalar>(features), data_of<Scalar>(grad), table,
                                    mutable_data_of<Scalar>(grad_weight), thread_count());
      check_rows(op, bad_row, shape.rows);
    }
  });
  return {grad_features, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("subm_conv", TORCH_BOX(&conv));
  m.impl("subm_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
