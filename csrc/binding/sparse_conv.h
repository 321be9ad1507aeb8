// Tensors as the arguments of sparse convolution kernels; the checks that need no look at contents.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "binding/storage_types.h"
#include "common/check.h"
#include "common/conv_shape.h"

namespace perception3d {

// A table of row numbers, and the argument that it is.
struct RowTable {
  const char* name;
  const Tensor& rows;
};

// The tensors of one call.  A sub-manifold convolution has one table for both sides, which is
// symmetric: a voxel is found at the opposite tap of what is found at a tap of its own.
struct SparseConvTensors {
  const Tensor& features;  // (inputs, Cin)
  RowTable inputs;         // (rows, K): row of the features at each tap of a row of the result
  RowTable outputs;        // (inputs, K): row of the result at each tap of a row of the features
  const Tensor& weight;    // (K, Cin, Cout), read as it lies in memory
  bool symmetric;

  ScalarType dtype() const { return features.scalar_type(); }

  ConvShape shape() const {
    return {inputs.rows.size(0), inputs.rows.size(1), features.size(1), weight.size(2),
            features.size(0)};
  }

  // Call is a CpuCall or a DeviceCall.
  template <typename Call>
  void check(const char* op, Call& call) const {
    call.check_input("features", features, dtype(), 2);
    call.check_input(inputs.name, inputs.rows, ScalarType::Int, 2);
    if (!symmetric) call.check_input(outputs.name, outputs.rows, ScalarType::Int, 2);
    call.check_view("weight", weight, dtype(), 3);
    STD_TORCH_CHECK(shape().rows < INT32_MAX && shape().inputs < INT32_MAX, op,
                    ": there must be fewer than 2^31 - 1 voxels");
    check_size(op, outputs.name, outputs.rows, 0, shape().inputs);
    check_size(op, outputs.name, outputs.rows, 1, shape().taps);
    check_size(op, "weight", weight, 0, shape().taps);
    check_size(op, "weight", weight, 1, shape().in_channels);
  }

  template <typename Call>
  void check_bias(const char* op, Call& call, const std::optional<Tensor>& bias) const {
    if (!bias.has_value()) return;
    call.check_input("bias", *bias, dtype(), 1);
    check_size(op, "bias", *bias, 0, shape().out_channels);
  }

  template <typename Call>
  void check_grad(const char* op, Call& call, const Tensor& grad) const {
    call.check_input("grad", grad, dtype(), 2);
    check_size(op, "grad", grad, 0, shape().rows);
    check_size(op, "grad", grad, 1, shape().out_channels);
  }

  template <typename Scalar>
  ConvWeight<Scalar> weights() const {
    return {data_of<Scalar>(weight), weight.stride(0), weight.stride(1), weight.stride(2)};
  }

  // Of the convolution that takes gradients back; see common/conv_shape.h.
  template <typename Scalar>
  ConvWeight<Scalar> weights_back() const {
    const ConvWeight<Scalar> plain = weights<Scalar>();
    return transposed(symmetric ? reversed(plain, shape().taps) : plain);
  }
};

// The operators on a device, which knows
//   convolve(op, tensors, bias) -> result, and
//   go_back(op, grad, tensors, needs_features, needs_weight) -> gradients of features and weight.
template <typename Device>
struct SparseConvOperators {
  static Tensor subm_conv(const Tensor& features, const Tensor& neighbours, const Tensor& weight,
                          std::optional<Tensor> bias) {
    return Device::convolve("subm_conv", subm_tensors(features, neighbours, weight), bias);
  }

  static std::tuple<Tensor, Tensor> subm_conv_backward(const Tensor& grad, const Tensor& features,
                                                       const Tensor& neighbours,
                                                       const Tensor& weight, bool needs_features,
                                                       bool needs_weight) {
    return Device::go_back("subm_conv_backward", grad, subm_tensors(features, neighbours, weight),
                           needs_features, needs_weight);
  }

  static Tensor sparse_conv(const Tensor& features, const Tensor& inputs, const Tensor& outputs,
                            const Tensor& weight, std::optional<Tensor> bias) {
    return Device::convolve("sparse_conv", sparse_tensors(features, inputs, outputs, weight), bias);
  }

  static std::tuple<Tensor, Tensor> sparse_conv_backward(const Tensor& grad, const Tensor& features,
                                                         const Tensor& inputs,
                                                         const Tensor& outputs,
                                                         const Tensor& weight, bool needs_features,
                                                         bool needs_weight) {
    return Device::go_back("sparse_conv_backward", grad,
                           sparse_tensors(features, inputs, outputs, weight), needs_features,
                           needs_weight);
  }

 private:
  static SparseConvTensors subm_tensors(const Tensor& features, const Tensor& neighbours,
                                        const Tensor& weight) {
    return {features, {"neighbours", neighbours}, {"neighbours", neighbours}, weight, true};
  }

  static SparseConvTensors sparse_tensors(const Tensor& features, const Tensor& inputs,
                                          const Tensor& outputs, const Tensor& weight) {
    return {features, {"inputs", inputs}, {"outputs", outputs}, weight, false};
  }
};

}  // namespace perception3d
