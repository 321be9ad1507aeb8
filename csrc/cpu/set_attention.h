// Softmax attention inside sets of rows.
#pragma once

#include <cstdint>

#include "common/set_attention.h"

namespace perception3d {

// result (num_rows, heads, width) = softmax(query . key / sqrt(width)) value over the set of each
// row.  log_sum (num_rows, heads), unless null: base-2 logarithm of the sum of
// exp(query . key / sqrt(width)).
template <typename Scalar>
void set_attention(const AttentionRows<Scalar>& rows, const RowSets& sets, Scalar* result,
                   Compute<Scalar>* log_sum, int threads);

// grad is the gradient of the result.  Every sum has a fixed order.
template <typename Scalar>
void set_attention_backward(const HeadRows<Scalar>& grad, const AttentionRows<Scalar>& rows,
                            const HeadRows<Scalar>& result, const Compute<Scalar>* log_sum,
                            const RowSets& sets, const AttentionGradients<Scalar>& gradients,
                            int threads);

}  // namespace perception3d
