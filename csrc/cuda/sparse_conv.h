// Sparse convolution as products of gathered rows, and its gradients, on CUDA.
#pragma once

#include <cstdint>

#include "common/conv_shape.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Scalar is float, double, BFloat16 or Float16; products and sums of 16-bit types are float.
// Rows of a table outside the features are looked for in P3D_DEBUG builds only.

// result (rows, out_channels) as in cpu/subm_conv.h, from features (inputs, in_channels) and a
// table (rows, taps); bias may be null.
template <typename Scalar>
Status sparse_conv(const ConvShape& shape, const Scalar* features, const int32_t* table,
                   const ConvWeight<Scalar>& weight, const Scalar* bias, Scalar* result,
                   Stream stream);

// What `workspace` must hold for the gradient of the weight, numbers of type Compute<Scalar>.
int64_t sparse_conv_weight_workspace(const ConvShape& shape);

// grad_weight (taps, in_channels, out_channels).  Sums are made in an order that only the table
// decides.
template <typename Scalar>
Status sparse_conv_weight_backward(const ConvShape& shape, const Scalar* features,
                                   const Scalar* grad, const int32_t* table, Scalar* grad_weight,
                                   void* workspace, Stream stream);

}  // namespace cuda
}  // namespace perception3d
