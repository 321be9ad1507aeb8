// RMS norm and Mamba mixer of rows that form sequences: projections, causal convolution, selective
// scan and gate in one.
#pragma once

#include "common/scan_layout.h"
#include "cpu/add_norm.h"
#include "cpu/linear.h"

namespace perception3d {

// For a row x of C numbers, D inner channels, N states and a step rank R:
//   inner, gate = in(norm * x / rms(x)),   x + added where there are rows to add
//   u           = silu(causal convolution of inner along the sequence)
//   low, B, C   = project(u)
//   y           = selective scan of u with steps softplus(step(low) + step_bias), times silu(gate)
//   result      = after(out(y)),           a layer norm, if there is one
// in: C to 2 D; project: D to R + 2 N; step: R to D; out: D to C; none with a bias.
template <typename Number>
struct MambaMixer {
  RowMatrix<Number> rows, added;  // the latter as many, or without data
  SequenceLayout layout;
  const Number* norm;  // (C)
  Number epsilon;
  LinearMap<Number> in, project, step, out;
  const Number *conv_weight, *conv_bias;  // (D, K), (D)
  int64_t taps;
  const Number *A, *skip, *step_bias;  // (D, N), (D), (D)
  int64_t states;
  const Number *after_weight, *after_bias;  // (C), or null
  Number after_epsilon;
};

// result (rows, C), contiguous.  A few rows at a time go through all of it while they lie in the
// cache.  The same on any number of threads, and for any other sequences.
template <typename Number>
void mamba_mixer(const MambaMixer<Number>& mixer, Number* result, int threads);

}  // namespace perception3d
