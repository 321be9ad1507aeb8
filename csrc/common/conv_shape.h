// Sizes of a sub-manifold convolution, for the kernels of all devices.
#pragma once

#include <cstdint>

namespace perception3d {

struct ConvShape {
  int64_t rows, taps, in_channels, out_channels;
};

// The convolution that takes gradients of results to gradients of features: on symmetric tables,
// the same with every weight matrix transposed and the taps reversed.
inline ConvShape transposed(const ConvShape& shape) {
  return {shape.rows, shape.taps, shape.out_channels, shape.in_channels};
}

}  // namespace perception3d
