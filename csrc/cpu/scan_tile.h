// One run of a scan in fast memory: 64 places at most, one vector of channels at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "cpu/scan_runs.h"
#include "cpu/selective_scan.h"
#include "cpu/slots.h"

namespace perception3d {

// States that are walked at once; N is padded with states that stay 0.
constexpr int64_t kStatesAtOnce = 4;

inline int64_t padded_states(int64_t states) {
  return (states + kStatesAtOnce - 1) / kStatesAtOnce * kStatesAtOnce;
}

// A run with what all channels read: its rows, and B and C side by side as Numbers.
template <typename Number>
struct RunTile {
  int64_t row[kScanChunk];
  int64_t next_row[kScanChunk];  // of the run after this one
  int64_t length, next_length;
  int64_t states;              // padded
  std::vector<Number> inputs;  // (kScanChunk, 2, states): B, C

  explicit RunTile(int64_t num_states)
      : states(padded_states(num_states)), inputs(kScanChunk * 2 * states) {}
};

template <typename Scalar, typename Number>
P3D_INLINE void load_run(const ScanInputs<Scalar>& in, const Run& run, const Run* next,
                         RunTile<Number>& tile) {
  rows_of_run(in.shape.layout, run, tile.row);
  tile.length = run.length;
  tile.next_length = 0;
  if (next != nullptr) {
    rows_of_run(in.shape.layout, *next, tile.next_row);
    tile.next_length = next->length;
  }
  for (int64_t t = 0; t < run.length; ++t) {
    const Scalar* b = in.B.data + tile.row[t] * in.B.stride;
    const Scalar* c = in.C.data + tile.row[t] * in.C.stride;
    Number* target = tile.inputs.data() + t * 2 * tile.states;
    for (int64_t n = 0; n < in.shape.states; ++n) {
      target[n] = load(b[n]);
      target[tile.states + n] = load(c[n]);
    }
  }
}

// The parameters and the running state of one vector of channels.
template <typename Number>
struct ChannelBlock {
  int64_t channel, count;           // `count` lanes are in use
  std::vector<Slot<Number>> decay;  // (states) A * log2(e)
  std::vector<Slot<Number>> state;  // (states)
  Slot<Number> largest_decay;       // max |decay| over states
  Slot<Number> skip, delta_bias;

  template <typename Scalar>
  ChannelBlock(const ScanInputs<Scalar>& in, int64_t first_channel)
      : channel(first_channel),
        count(std::min<int64_t>(kLanesOf<Number>, in.shape.channels - first_channel)),
        decay(padded_states(in.shape.states)),
        state(decay.size()),
        largest_decay{},
        skip{},
        delta_bias{} {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t n = 0; n < in.shape.states; ++n) {
        const Number value =
            static_cast<Number>(in.A[(channel + i) * in.shape.states + n] * kLog2E);
        decay[n].lanes[i] = value;
        const Number size = value < 0 ? -value : value;
        if (!(size <= largest_decay.lanes[i]))
          largest_decay.lanes[i] = size;  // NaN counts as large
      }
      if (in.skip != nullptr) skip.lanes[i] = in.skip[channel + i];
      if (in.delta_bias != nullptr) delta_bias.lanes[i] = in.delta_bias[channel + i];
    }
  }

  void reset() { std::fill(state.begin(), state.end(), Slot<Number>{}); }
};

// u and delta of a run and of one vector of channels.
template <typename Number>
struct StepTile {
  Slot<Number> u[kScanChunk], delta[kScanChunk];
  Slot<Number> input[kScanChunk];  // delta * u
  Slot<Number> y[kScanChunk];      // before skip and gate
  Slot<Number> gate[kScanChunk];
  bool regular;  // every exp(delta A) is a normal number
};

// The block's channels of the rows of a run.
template <typename Scalar, typename Number>
P3D_INLINE void gather_rows(const Rows<const Scalar>& source, const RunTile<Number>& run,
                            const ChannelBlock<Number>& block, Slot<Number>* target) {
  const Scalar* data = source.data + block.channel;
  for (int64_t t = 0; t < run.length; ++t) {
    load_part(data + run.row[t] * source.stride, block.count, target[t]);
  }
}

// The rows of the run after this one on their way from memory while this run is computed: they are
// far apart, or anywhere, so that no hardware foresees them.  Every step of every vector of
// channels fetches one vector of each source.  Memory is fast along rows, so row after row is
// fetched, while channels are worked off one vector after the other.
template <typename Scalar>
struct RowsAhead {
  const Scalar* data[4];
  int64_t stride[4];
  int count;
  const int64_t* row;
  int64_t length;
  int64_t vectors;        // of a row
  int64_t place, vector;  // what comes next

  P3D_INLINE void fetch() {
    if (place >= length) return;
    const int64_t channel = vector * kLanesOf<Compute<Scalar>>;
    for (int i = 0; i < count; ++i) {
      __builtin_prefetch(data[i] + row[place] * stride[i] + channel, 0, 2);
    }
    if (++vector < vectors) return;
    vector = 0;
    ++place;
  }
};

// For `vectors` vectors of channels from `channel` on.
template <typename Scalar, typename Number>
P3D_INLINE void look_ahead(const RunTile<Number>& run, int64_t channel, int64_t vectors,
                           std::initializer_list<Rows<const Scalar>> sources,
                           RowsAhead<Scalar>& ahead) {
  ahead = RowsAhead<Scalar>{};
  ahead.row = run.next_row;
  ahead.length = run.next_length;
  ahead.vectors = vectors;
  for (const Rows<const Scalar>& source : sources) {
    if (source.data == nullptr) continue;
    ahead.data[ahead.count] = source.data + channel;
    ahead.stride[ahead.count++] = source.stride;
  }
}

template <typename Scalar, typename Number>
P3D_INLINE void scatter_rows(const Slot<Number>* source, const RunTile<Number>& run,
                             const ChannelBlock<Number>& block, int64_t channels, Scalar* target) {
  for (int64_t t = 0; t < run.length; ++t) {
    store_part(source[t], block.count, target + run.row[t] * channels + block.channel);
  }
}

// The slope of softplus goes to `slope` unless that is null.
template <typename Scalar, typename Number>
P3D_INLINE void load_steps(const ScanInputs<Scalar>& in, const RunTile<Number>& run,
                           const ChannelBlock<Number>& block, StepTile<Number>& steps,
                           Slot<Number>* slope) {
  gather_rows(in.u, run, block, steps.u);
  gather_rows(in.delta, run, block, steps.delta);
  const Vector<Number> bias = block.delta_bias.lanes;
  Vector<Number> largest{};
  for (int64_t t = 0; t < run.length; ++t) {
    Vector<Number> delta = steps.delta[t].lanes + bias;
    if (in.softplus) {
      const Vector<Number> raw = delta;
      Vector<Number> power;
      softplus<Number>(raw, delta, power);
      if (slope != nullptr) softplus_slope<Number>(raw, power, slope[t].lanes);
    }
    const Vector<Number> size = delta < Number{0} ? -delta : delta;
    largest = size <= largest ? largest : size;  // NaN stays
    steps.delta[t].lanes = delta;
    steps.input[t].lanes = delta * steps.u[t].lanes;
    steps.y[t].lanes = Vector<Number>{};
  }
  const auto inside = largest * block.largest_decay.lanes <= -ExpTable<Number>::kLowest - Number{1};
  steps.regular = true;
  for (int64_t i = 0; i < block.count; ++i) steps.regular &= inside[i] != 0;
}

}  // namespace perception3d
