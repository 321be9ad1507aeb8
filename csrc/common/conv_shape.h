// Sizes and weights of a sparse convolution, for the kernels of all devices.
#pragma once

#include <cstdint>

namespace perception3d {

// rows: of the result; inputs: rows of the features.  Equal in a sub-manifold convolution.
struct ConvShape {
  int64_t rows, taps, in_channels, out_channels, inputs;
};

// Weights (taps, in, out) anywhere in memory: element (k, i, o) is data[k * tap + i * in + o *
// out].
template <typename Scalar>
struct ConvWeight {
  const Scalar* data;
  int64_t tap, in, out;
};

// The convolution that takes gradients of results to gradients of features has every matrix
// transposed.  With a table of its own the taps stay; on a symmetric table they are reversed.
inline ConvShape transposed(const ConvShape& shape) {
  return {shape.inputs, shape.taps, shape.out_channels, shape.in_channels, shape.rows};
}
template <typename Scalar>
ConvWeight<Scalar> transposed(const ConvWeight<Scalar>& weight) {
  return {weight.data, weight.tap, weight.out, weight.in};
}
template <typename Scalar>
ConvWeight<Scalar> reversed(const ConvWeight<Scalar>& weight, int64_t taps) {
  return {weight.data + (taps - 1) * weight.tap, -weight.tap, weight.in, weight.out};
}

}  // namespace perception3d
