// Linear attention inside windows of any length (ScatterFormer, ECCV 2024, section 3.2).
#pragma once

#include "common/linear_attention.h"

namespace perception3d {

// output (rows, heads, value_width): of every window and head,
//   relu(q) (sum relu(k) v^T) / (relu(q) . sum relu(k) + epsilon).
template <typename Scalar>
void scattered_linear_attention(const LinearAttention<Scalar>& attention,
                                const WritableHeadRows<Scalar>& output, int threads);

// Gradients of all inputs for the gradient `grad` of the output; relu has slope 0 at 0.
template <typename Scalar>
void scattered_linear_attention_backward(const LinearAttention<Scalar>& attention,
                                         const HeadRows<Scalar>& grad,
                                         const WritableHeadRows<Scalar>& grad_query,
                                         const WritableHeadRows<Scalar>& grad_key,
                                         const WritableHeadRows<Scalar>& grad_value, int threads);

}  // namespace perception3d
