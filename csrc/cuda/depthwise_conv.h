// Depth-wise sub-manifold convolution on CUDA: several kernel shapes in one launch.
#pragma once

#include <cstdint>
#include <vector>

#include "common/depthwise_group.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Scalar is float, double, BFloat16 or Float16; 16-bit types are summed in float.  Arguments as in
// cpu/depthwise_conv.h; neighbours outside the rows are looked for in P3D_DEBUG builds only.

template <typename Scalar>
Status depthwise_conv(const DepthwiseConv<Scalar>& conv, const Scalar* features, Scalar* result,
                      Stream stream);

// Gradient of the features: relies on the symmetry of the tables.
template <typename Scalar>
Status depthwise_conv_features_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                        Scalar* grad_features, Stream stream);

// What `workspace` must hold, numbers of type Compute<Scalar>.
template <typename Scalar>
int64_t depthwise_weight_workspace(const DepthwiseConv<Scalar>& conv);

// grad_weight: (taps, channels) of each group.  Sums are made in an order that only the number of
// rows decides.
template <typename Scalar>
Status depthwise_conv_weight_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                      const Scalar* features,
                                      const std::vector<Scalar*>& grad_weight, void* workspace,
                                      Stream stream);

}  // namespace cuda
}  // namespace perception3d
