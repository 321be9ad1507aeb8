// Softmax attention inside sets of rows, on CUDA.
#pragma once

#include <cstdint>

#include "common/set_attention.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Wider heads are refused.
constexpr int64_t kWidestHead = 256;

// As cpu/set_attention.h; sets of any size in one launch.
template <typename Scalar>
Status set_attention(const AttentionRows<Scalar>& rows, const RowSets& sets, int64_t num_rows,
                     Scalar* result, Compute<Scalar>* log_sum, Stream stream);

// workspace: num_rows * heads numbers.  Two launches, no atomics.
template <typename Scalar>
Status set_attention_backward(const HeadRows<Scalar>& grad, const AttentionRows<Scalar>& rows,
                              const HeadRows<Scalar>& result, const Compute<Scalar>* log_sum,
                              const RowSets& sets, int64_t num_rows,
                              const AttentionGradients<Scalar>& gradients,
                              Compute<Scalar>* workspace, Stream stream);

}  // namespace cuda
}  // namespace perception3d
