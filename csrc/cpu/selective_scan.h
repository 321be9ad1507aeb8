// Selective scan on the CPU, see common/selective_scan.h.
#pragma once

#include "common/selective_scan.h"

namespace perception3d {

template <typename Scalar>
void selective_scan(const ScanInputs<Scalar>& inputs, const ScanResults<Scalar>& results,
                    int threads);

// Every sum has one fixed order: the gradients do not depend on the number of threads.
template <typename Scalar>
void selective_scan_backward(const ScanInputs<Scalar>& inputs, const Rows<const Scalar>& grad,
                             const Compute<Scalar>* checkpoints,
                             const ScanGradients<Scalar>& gradients, int threads);

}  // namespace perception3d
