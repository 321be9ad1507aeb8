// Causal convolution on CUDA, see common/causal_conv1d.h.
#pragma once

#include "common/causal_conv1d.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Scalar is float, BFloat16 or Float16.
constexpr int64_t kMostConvTaps = 16;

// y: (L, D).
template <typename Scalar>
Status causal_conv1d(const CausalConv<Scalar>& conv, Scalar* y, Stream stream);

int64_t conv_backward_workspace_bytes(int64_t length, int64_t channels);

// grad_x (L, D), grad_weight (D, K), grad_bias (D) or null.  Every sum has one fixed order.
template <typename Scalar>
Status causal_conv1d_backward(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                              Scalar* grad_x, float* grad_weight, float* grad_bias, void* workspace,
                              Stream stream);

}  // namespace cuda
}  // namespace perception3d
