// Tensors as the arguments of causal convolution kernels.
#pragma once

#include <cstdint>
#include <optional>

#include "binding/sequences.h"
#include "common/causal_conv1d.h"

namespace perception3d {

// The tensors of one call, checked as far as that needs no look at contents.
struct ConvTensors {
  const Tensor& x;
  const Tensor& weight;
  const std::optional<Tensor>& bias;
  const Tensor& offsets;
  bool silu;
  const std::optional<Tensor>& order;
  bool reverse;

  int64_t length() const { return x.size(0); }
  int64_t channels() const { return weight.size(0); }

  void check(const char* op) const {
    STD_TORCH_CHECK(weight.dim() == 2, op, ": weight must have 2 dimensions, got ", weight.dim());
    STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions, got ", x.dim());
    STD_TORCH_CHECK(weight.size(1) >= 1, op, ": weight must have at least one tap");
    check_dense(op, "weight", weight, x, compute_type(x), 2);
    check_rows(op, "x", x, x, length(), channels());
    if (bias.has_value()) {
      check_dense(op, "bias", *bias, x, compute_type(x), 1);
      check_size(op, "bias", *bias, 0, channels());
    }
  }

  template <typename Scalar>
  CausalConv<Scalar> arguments(const char* op) const {
    using Number = Compute<Scalar>;
    return {sequence_layout(op, x, offsets, order, reverse),
            channels(),
            weight.size(1),
            rows_of<Scalar>(x),
            data_of<Number>(weight),
            bias.has_value() ? data_of<Number>(*bias) : nullptr,
            silu};
  }
};

}  // namespace perception3d
