// Causal depth-wise convolution along sequences laid end to end, and its gradient.
//
//   y_t = f(bias + sum_j weight[j] x_(t - K + 1 + j)),  f = silu or nothing
//
// Taps before the first step of a sequence are 0.  Sequences as in common/selective_scan.h.
#pragma once

#include <cstdint>

#include "common/scalar.h"
#include "common/scan_layout.h"

namespace perception3d {

template <typename Scalar>
struct CausalConv {
  using Number = Compute<Scalar>;
  SequenceLayout layout;
  int64_t channels, taps;
  Rows<const Scalar> x;  // (L, D)
  const Number* weight;  // (D, K)
  const Number* bias;    // (D) or null
  bool silu;
};

}  // namespace perception3d
