// Causal convolution on the CPU, see common/causal_conv1d.h.
#pragma once

#include "common/causal_conv1d.h"

namespace perception3d {

// y: (L, D).
template <typename Scalar>
void causal_conv1d(const CausalConv<Scalar>& conv, Scalar* y, int threads);

// grad_x: (L, D); grad_weight: (D, K); grad_bias: (D) or null.  Every sum has one fixed order: the
// gradients do not depend on the number of threads.
template <typename Scalar>
void causal_conv1d_backward(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                            Scalar* grad_x, Compute<Scalar>* grad_weight,
                            Compute<Scalar>* grad_bias, int threads);

}  // namespace perception3d
