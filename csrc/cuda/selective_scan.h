// Selective scan on CUDA, see common/selective_scan.h.
#pragma once

#include "common/selective_scan.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Scalar is float, BFloat16 or Float16.  At most kMostScanStates states.
constexpr int64_t kMostScanStates = 256;

// Numbers of workspace of the forward pass, beside (chunks, N, D) for results.checkpoints, which
// must not be null.
int64_t scan_workspace_bytes(const ScanShape& shape);

// Three launches: every chunk on its own, the states between chunks, every chunk with its state.
template <typename Scalar>
Status selective_scan(const ScanInputs<Scalar>& inputs, const ScanResults<Scalar>& results,
                      void* workspace, Stream stream);

int64_t scan_backward_workspace_bytes(const ScanShape& shape);

// Every sum has one fixed order.
template <typename Scalar>
Status selective_scan_backward(const ScanInputs<Scalar>& inputs, const Rows<const Scalar>& grad,
                               const float* checkpoints, const ScanGradients<Scalar>& gradients,
                               void* workspace, Stream stream);

}  // namespace cuda
}  // namespace perception3d
