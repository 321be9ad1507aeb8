// Sparse convolution as products of gathered rows, and its gradients.
#pragma once

#include <cstdint>

#include "common/conv_shape.h"

namespace perception3d {

// result (rows, out_channels) = bias + sum over taps k of features[neighbours[row, k]] W_k, taps
// without a voxel left out.  features (inputs, in_channels), neighbours (rows, taps) -1 or rows of
// the features; bias may be null.  Returns a row whose neighbours do not exist, and then the result
// is incomplete; or -1.
template <typename Scalar>
int64_t subm_conv(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
                  const ConvWeight<Scalar>& weight, const Scalar* bias, Scalar* result,
                  int threads);

// grad_weight (taps, in_channels, out_channels) = sum over rows of the features at each tap times
// the gradient of the result, equal for any number of threads.  Returns as above.
template <typename Scalar>
int64_t subm_conv_weight_gradient(const ConvShape& shape, const Scalar* features,
                                  const Scalar* grad, const int32_t* neighbours,
                                  Scalar* grad_weight, int threads);

}  // namespace perception3d
