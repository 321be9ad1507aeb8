// Sizes of a sparse convolution, for the kernels of all devices.
#pragma once

#include <cstdint>

namespace perception3d {

// rows: of the result; inputs: rows of the features.  Equal in a sub-manifold convolution.
struct ConvShape {
  int64_t rows, taps, in_channels, out_channels, inputs;
};

// The convolution that takes gradients of results to gradients of features: on symmetric tables,
// the same with every weight matrix transposed and the taps reversed; with a table of their own,
// the taps stay.
inline ConvShape transposed(const ConvShape& shape) {
  return {shape.inputs, shape.taps, shape.out_channels, shape.in_channels, shape.rows};
}

}  // namespace perception3d
