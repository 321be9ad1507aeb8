// Selective state space recurrence (Mamba) over sequences laid end to end, and its gradient.
//
//   delta = softplus(raw delta + bias)            or raw delta + bias
//   h_t   = exp(delta_t A) h_(t-1) + delta_t u_t B_t      per channel and state, 0 before a start
//   y_t   = (sum_n C_t h_t + skip u_t) * silu(gate_t)
//
// Sequence s is the rows order[offsets[s]] .. order[offsets[s + 1] - 1], walked in that order or
// backwards: nothing is permuted or flipped in memory.
#pragma once

#include <cstdint>

#include "common/scalar.h"
#include "common/scan_layout.h"

namespace perception3d {

// The arrays of a scan.  Rows are stored as Scalar; parameters and states are Numbers.
template <typename Scalar>
struct ScanInputs {
  using Number = Compute<Scalar>;
  ScanShape shape;
  Rows<const Scalar> u, delta;  // (L, D)
  Rows<const Scalar> B, C;      // (L, N)
  Rows<const Scalar> gate;      // (L, D) or none
  const Number* A;              // (D, N)
  const Number* skip;           // (D) or null
  const Number* delta_bias;     // (D) or null
  bool softplus;
};

template <typename Scalar>
struct ScanResults {
  using Number = Compute<Scalar>;
  Scalar* y;            // (L, D)
  Number* checkpoints;  // (chunks, N, D) the states before each chunk of kScanChunk places, or null
  Number* last_state;   // (S, D, N) or null
};

// Gradients; those of absent inputs are null.
template <typename Scalar>
struct ScanGradients {
  using Number = Compute<Scalar>;
  Scalar *u, *delta, *B, *C, *gate;
  Number *A, *skip, *delta_bias;
};

}  // namespace perception3d
