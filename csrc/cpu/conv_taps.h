// What both directions of the causal convolution share.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/causal_conv1d.h"
#include "cpu/scan_runs.h"
#include "cpu/slots.h"

namespace perception3d {

// Products of a tap and a row that are worth a thread.
constexpr int64_t kTapsPerWorker = 1 << 18;

// Weights and biases of each vector of channels: taps 0 .. K - 1, then the bias.
template <typename Number>
struct TapTable {
  int64_t taps, blocks;
  std::vector<Slot<Number>> slots;  // (blocks, taps + 1)

  template <typename Scalar>
  explicit TapTable(const CausalConv<Scalar>& conv)
      : taps(conv.taps),
        blocks((conv.channels + kLanesOf<Number> - 1) / kLanesOf<Number>),
        slots(blocks * (taps + 1)) {
    for (int64_t channel = 0; channel < conv.channels; ++channel) {
      const int64_t lane = channel % kLanesOf<Number>;
      Slot<Number>* block = slots.data() + channel / kLanesOf<Number> * (taps + 1);
      for (int64_t j = 0; j < taps; ++j) block[j].lanes[lane] = conv.weight[channel * taps + j];
      block[taps].lanes[lane] = conv.bias == nullptr ? Number{0} : conv.bias[channel];
    }
  }

  const Slot<Number>* of_block(int64_t block) const { return slots.data() + block * (taps + 1); }
};

// The steps of one run, all channels.  `row` has room for a pointer per step and tap, `zeros` are
// as many as there are channels.
#define P3D_DECLARE(Scalar)                                                                 \
  void convolve_run(const CausalConv<Scalar>& conv, const TapTable<Compute<Scalar>>& table, \
                    const Run& run, const Scalar** row, const Scalar* zeros, Scalar* y);
P3D_FOR_EACH_STORAGE(P3D_DECLARE)
#undef P3D_DECLARE

template <typename Scalar>
int conv_workers(const CausalConv<Scalar>& conv, int threads) {
  return worker_count(threads, conv.layout.length * conv.channels * conv.taps, kTapsPerWorker);
}

}  // namespace perception3d
