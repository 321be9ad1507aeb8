// Linear attention inside windows of any length (ScatterFormer, ECCV 2024, section 3.2) on CUDA.
#pragma once

#include <cstdint>

#include "common/linear_attention.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Scalar is float, double, BFloat16 or Float16; sums are kept in float or double.  Arguments as on
// the CPU, with num_rows = offsets[num_windows], which lies on the device.  Products, sums and
// their order are decided by the windows alone: equal on every run.

// What `workspace` must hold, bytes, 16-byte aligned; negative if the widths need more shared
// memory than a block can have (about 128 x 128 numbers).
template <typename Scalar>
int64_t linear_attention_workspace_bytes(const LinearAttention<Scalar>& attention, int64_t num_rows,
                                         bool backward);

template <typename Scalar>
Status scattered_linear_attention(const LinearAttention<Scalar>& attention, int64_t num_rows,
                                  const WritableHeadRows<Scalar>& output, void* workspace,
                                  Stream stream);

template <typename Scalar>
Status scattered_linear_attention_backward(const LinearAttention<Scalar>& attention,
                                           int64_t num_rows, const HeadRows<Scalar>& grad,
                                           const WritableHeadRows<Scalar>& grad_query,
                                           const WritableHeadRows<Scalar>& grad_key,
                                           const WritableHeadRows<Scalar>& grad_value,
                                           void* workspace, Stream stream);

}  // namespace cuda
}  // namespace perception3d
