// The way back through one run of a scan.
#pragma once

#include <cstring>
#include <vector>

#include "cpu/scan_tile.h"

namespace perception3d {

constexpr double kLn2 = 0.6931471805599453;

// A vector of sums in double, so that sums over a million places keep their digits.
struct alignas(64) DoubleSums {
  double lanes[16] = {};

  template <typename Number>
  P3D_INLINE void add(const Vector<Number>& terms) {
    for (int64_t i = 0; i < kLanesOf<Number>; ++i) lanes[i] += terms[i];
  }
};

// A block of channels walked backwards: the adjoint of its state, and sums over the steps.
template <typename Number>
struct AdjointBlock : ChannelBlock<Number> {
  std::vector<Slot<Number>> carry;  // adjoint of the state, times exp(delta A), of the step after
  std::vector<DoubleSums> decay_sum;
  DoubleSums skip_sum, bias_sum;

  template <typename Scalar>
  AdjointBlock(const ScanInputs<Scalar>& in, int64_t first_channel)
      : ChannelBlock<Number>(in, first_channel),
        carry(this->decay.size()),
        decay_sum(this->decay.size()) {}
};

// One run of one block on the way back.
template <typename Number>
struct AdjointTile {
  StepTile<Number> steps;
  Slot<Number> slope[kScanChunk];
  Slot<Number> result_grad[kScanChunk];  // of the operator's result
  Slot<Number> grad[kScanChunk];         // of y before the gate
  Slot<Number> opened[kScanChunk];       // sigmoid(gate)
  Slot<Number> input_grad[kScanChunk];   // of delta * u
  Slot<Number> decay_grad[kScanChunk];   // of delta through exp(delta A), over ln 2
  Slot<Number> keep[kScanChunk * kStatesAtOnce];
  Slot<Number> state[(kScanChunk + 1) * kStatesAtOnce];  // before each step, and at last
};

// sums[i] += the sum of the lanes of terms[i].
P3D_INLINE void add_lane_sums(const Vector<float> (&terms)[4], float* sums) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t Places __attribute__((vector_size(16)));
  Four part[4];
  for (int i = 0; i < 4; ++i) {
    Eight low, high;
    std::memcpy(&low, &terms[i], sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&terms[i]) + sizeof(low), sizeof(low));
    low += high;
    Four upper;
    std::memcpy(&part[i], &low, sizeof(upper));
    std::memcpy(&upper, reinterpret_cast<const char*>(&low) + sizeof(upper), sizeof(upper));
    part[i] += upper;
  }
  const Places even = {0, 4, 1, 5}, odd = {2, 6, 3, 7};
  const Four a =
      __builtin_shuffle(part[0], part[1], even) + __builtin_shuffle(part[0], part[1], odd);
  const Four b =
      __builtin_shuffle(part[2], part[3], even) + __builtin_shuffle(part[2], part[3], odd);
  const Places first = {0, 1, 4, 5}, last = {2, 3, 6, 7};
  Four total;
  std::memcpy(&total, sums, sizeof(total));
  total += __builtin_shuffle(a, b, first) + __builtin_shuffle(a, b, last);
  std::memcpy(sums, &total, sizeof(total));
}
P3D_INLINE void add_lane_sums(const Vector<double> (&terms)[4], double* sums) {
  for (int i = 0; i < 4; ++i) {
    const Vector<double>& term = terms[i];
    sums[i] +=
        ((term[0] + term[4]) + (term[2] + term[6])) + ((term[1] + term[5]) + (term[3] + term[7]));
  }
}

// Walks four states of a run again, keeping what the way back needs, and sums y.
template <bool kRegular, typename Scalar, typename Number>
P3D_INLINE void recompute_states(const RunTile<Number>& run, int64_t first,
                                 RowsAhead<Scalar>& ahead, const AdjointBlock<Number>& block,
                                 AdjointTile<Number>& tile) {
  Vector<Number> decay[kStatesAtOnce], state[kStatesAtOnce];
  for (int n = 0; n < kStatesAtOnce; ++n) {
    decay[n] = block.decay[first + n].lanes;
    state[n] = block.state[first + n].lanes;
    tile.state[n].lanes = state[n];
  }
  const Number* inputs = run.inputs.data() + first;
  for (int64_t t = 0; t < run.length; ++t, inputs += 2 * run.states) {
    const Vector<Number> delta = tile.steps.delta[t].lanes, input = tile.steps.input[t].lanes;
    Vector<Number> y = tile.steps.y[t].lanes;
    if (first == 0) ahead.fetch();
    for (int n = 0; n < kStatesAtOnce; ++n) {
      Vector<Number> keep;
      exp2_product_if<kRegular, Number>(delta, decay[n], keep);
      state[n] = keep * state[n] + input * inputs[n];
      y += state[n] * inputs[run.states + n];
      tile.keep[t * kStatesAtOnce + n].lanes = keep;
      tile.state[(t + 1) * kStatesAtOnce + n].lanes = state[n];
    }
    tile.steps.y[t].lanes = y;
  }
}

// Takes the adjoint of four states from the last step of a run to its first.  sums: per step the
// gradients of B and C, (length, 2, states).
template <typename Number>
P3D_INLINE void walk_back(const RunTile<Number>& run, int64_t first, AdjointBlock<Number>& block,
                          AdjointTile<Number>& tile, Number* sums) {
  Vector<Number> decay[kStatesAtOnce], carry[kStatesAtOnce], decay_sum[kStatesAtOnce];
  for (int n = 0; n < kStatesAtOnce; ++n) {
    decay[n] = block.decay[first + n].lanes;
    carry[n] = block.carry[first + n].lanes;
    decay_sum[n] = Vector<Number>{};
  }
  for (int64_t t = run.length - 1; t >= 0; --t) {
    const Number* inputs = run.inputs.data() + t * 2 * run.states + first;
    const Vector<Number> delta = tile.steps.delta[t].lanes, input = tile.steps.input[t].lanes;
    const Vector<Number> grad = tile.grad[t].lanes;
    Vector<Number> input_grad = tile.input_grad[t].lanes, decay_grad = tile.decay_grad[t].lanes;
    Vector<Number> b_terms[kStatesAtOnce], c_terms[kStatesAtOnce];
    for (int n = 0; n < kStatesAtOnce; ++n) {
      const Slot<Number>* state = tile.state + t * kStatesAtOnce + n;
      const Vector<Number> adjoint = grad * inputs[run.states + n] + carry[n];
      c_terms[n] = grad * state[kStatesAtOnce].lanes;
      b_terms[n] = adjoint * input;
      input_grad += adjoint * inputs[n];
      carry[n] = adjoint * tile.keep[t * kStatesAtOnce + n].lanes;
      const Vector<Number> exponent_grad = carry[n] * state->lanes;
      decay_grad += exponent_grad * decay[n];
      decay_sum[n] += exponent_grad * delta;
    }
    tile.input_grad[t].lanes = input_grad;
    tile.decay_grad[t].lanes = decay_grad;
    add_lane_sums(b_terms, sums + t * 2 * run.states + first);
    add_lane_sums(c_terms, sums + (t * 2 + 1) * run.states + first);
  }
  for (int n = 0; n < kStatesAtOnce; ++n) {
    block.carry[first + n].lanes = carry[n];
    block.decay_sum[first + n].template add<Number>(decay_sum[n]);
  }
}

template <typename Scalar, typename Number>
P3D_INLINE void load_adjoint(const ScanInputs<Scalar>& in, const Rows<const Scalar>& result_grad,
                             const RunTile<Number>& run, const AdjointBlock<Number>& block,
                             AdjointTile<Number>& tile) {
  load_steps(in, run, block, tile.steps, tile.slope);
  gather_rows(result_grad, run, block, tile.result_grad);
  if (in.gate.data != nullptr) gather_rows(in.gate, run, block, tile.steps.gate);
  for (int64_t t = 0; t < run.length; ++t) {
    Vector<Number> grad = tile.result_grad[t].lanes;
    if (in.gate.data != nullptr) {
      sigmoid<Number>(tile.steps.gate[t].lanes, tile.opened[t].lanes);
      grad *= tile.steps.gate[t].lanes * tile.opened[t].lanes;
    }
    tile.grad[t].lanes = grad;
    tile.input_grad[t].lanes = Vector<Number>{};
    tile.decay_grad[t].lanes = Vector<Number>{};
  }
}

// Turns what was gathered into the gradients of u, delta and the gate, in place of their inputs.
template <typename Scalar, typename Number>
P3D_INLINE void write_adjoint(const ScanInputs<Scalar>& in, const RunTile<Number>& run,
                              AdjointBlock<Number>& block, AdjointTile<Number>& tile,
                              const ScanGradients<Scalar>& gradients) {
  Vector<Number> skip_sum{}, bias_sum{};
  for (int64_t t = 0; t < run.length; ++t) {
    const Vector<Number> u = tile.steps.u[t].lanes, grad = tile.grad[t].lanes;
    const Vector<Number> input_grad = tile.input_grad[t].lanes;
    if (in.gate.data != nullptr) {
      const Vector<Number> opened = tile.opened[t].lanes;
      const Vector<Number> y = tile.steps.y[t].lanes + block.skip.lanes * u;
      const Vector<Number> gate = tile.steps.gate[t].lanes;
      tile.steps.gate[t].lanes =
          tile.result_grad[t].lanes * y * opened * (Number{1} + gate * (Number{1} - opened));
    }
    skip_sum += grad * u;
    tile.steps.u[t].lanes = tile.steps.delta[t].lanes * input_grad + grad * block.skip.lanes;
    Vector<Number> delta_grad = u * input_grad + tile.decay_grad[t].lanes * Number(kLn2);
    if (in.softplus) delta_grad *= tile.slope[t].lanes;
    bias_sum += delta_grad;
    tile.steps.delta[t].lanes = delta_grad;
  }
  block.skip_sum.template add<Number>(skip_sum);
  block.bias_sum.template add<Number>(bias_sum);
  scatter_rows(tile.steps.u, run, block, in.shape.channels, gradients.u);
  scatter_rows(tile.steps.delta, run, block, in.shape.channels, gradients.delta);
  if (gradients.gate != nullptr) {
    scatter_rows(tile.steps.gate, run, block, in.shape.channels, gradients.gate);
  }
}

}  // namespace perception3d
