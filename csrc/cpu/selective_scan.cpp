#include "cpu/selective_scan.h"

#include <vector>

#include "cpu/scan_walk.h"

namespace perception3d {
namespace {

// Walks some states of one run: y += C h.
template <int kStates, bool kRegular, typename Scalar, typename Number>
P3D_INLINE void walk_states(const RunTile<Number>& run, int64_t first, RowsAhead<Scalar>& ahead,
                            ChannelBlock<Number>& block, StepTile<Number>& steps) {
  Vector<Number> decay[kStates], state[kStates];
  for (int n = 0; n < kStates; ++n) {
    decay[n] = block.decay[first + n].lanes;
    state[n] = block.state[first + n].lanes;
  }
  const Number* inputs = run.inputs.data() + first;
  for (int64_t t = 0; t < run.length; ++t, inputs += 2 * run.states) {
    const Vector<Number> delta = steps.delta[t].lanes, input = steps.input[t].lanes;
    Vector<Number> y = steps.y[t].lanes;
    if (first == 0) ahead.fetch();
    for (int n = 0; n < kStates; ++n) {
      Vector<Number> keep;
      exp2_product_if<kRegular, Number>(delta, decay[n], keep);
      state[n] = keep * state[n] + input * inputs[n];
      y += state[n] * inputs[run.states + n];
    }
    steps.y[t].lanes = y;
  }
  for (int n = 0; n < kStates; ++n) block.state[first + n].lanes = state[n];
}

template <bool kRegular, typename Scalar, typename Number>
P3D_INLINE void walk_all_states(const RunTile<Number>& run, RowsAhead<Scalar>& ahead,
                                ChannelBlock<Number>& block, StepTile<Number>& steps) {
  int64_t first = 0;
  for (; first + 2 * kStatesAtOnce <= run.states; first += 2 * kStatesAtOnce) {
    walk_states<2 * kStatesAtOnce, kRegular>(run, first, ahead, block, steps);
  }
  if (first < run.states) walk_states<kStatesAtOnce, kRegular>(run, first, ahead, block, steps);
}

template <typename Scalar, typename Number>
P3D_INLINE void write_steps(const ScanInputs<Scalar>& in, const RunTile<Number>& run,
                            const ChannelBlock<Number>& block, StepTile<Number>& steps,
                            Scalar* result) {
  if (in.gate.data != nullptr) gather_rows(in.gate, run, block, steps.gate);
  for (int64_t t = 0; t < run.length; ++t) {
    steps.y[t].lanes += block.skip.lanes * steps.u[t].lanes;
    if (in.gate.data != nullptr) {
      const Vector<Number> gate = steps.gate[t].lanes;
      Vector<Number> open;
      sigmoid<Number>(gate, open);
      steps.y[t].lanes *= gate * open;
    }
  }
  scatter_rows(steps.y, run, block, in.shape.channels, result);
}

template <typename Scalar, typename Number>
P3D_INLINE void walk_run_inline(const ScanInputs<Scalar>& in, const RunTile<Number>& run,
                                RowsAhead<Scalar>& ahead, ChannelBlock<Number>& block,
                                StepTile<Number>& steps, Scalar* y) {
  load_steps(in, run, block, steps, static_cast<Slot<Number>*>(nullptr));
  if (steps.regular) {
    walk_all_states<true>(run, ahead, block, steps);
  } else {
    walk_all_states<false>(run, ahead, block, steps);
  }
  write_steps(in, run, block, steps, y);
}

// What one thread needs for its channels.
template <typename Number>
struct Worker {
  RunTile<Number> run;
  StepTile<Number> steps;
  std::vector<ChannelBlock<Number>> blocks;

  explicit Worker(int64_t states) : run(states) {}
};

template <typename Scalar, typename Number>
P3D_INLINE void scan_run_inline(const ScanInputs<Scalar>& in, const Run& run, const Run* next,
                                Worker<Number>& worker, Scalar* y) {
  load_run(in, run, next, worker.run);
  RowsAhead<Scalar> ahead;
  look_ahead(worker.run, worker.blocks[0].channel, static_cast<int64_t>(worker.blocks.size()),
             {in.u, in.delta, in.gate, {y, in.shape.channels}}, ahead);
  for (ChannelBlock<Number>& block : worker.blocks) {
    walk_run(in, worker.run, ahead, block, worker.steps, y);
  }
}

#define P3D_CLONE_FOR(Scalar)                                                             \
  P3D_CLONES void scan_run(const ScanInputs<Scalar>& in, const Run& run, const Run* next, \
                           Worker<Compute<Scalar>>& worker, Scalar* y) {                  \
    scan_run_inline(in, run, next, worker, y);                                            \
  }
P3D_FOR_EACH_STORAGE(P3D_CLONE_FOR)
#undef P3D_CLONE_FOR

template <typename Number>
void write_checkpoint(const ChannelBlock<Number>& block, const ScanShape& shape, int64_t chunk,
                      Number* checkpoints) {
  for (int64_t n = 0; n < shape.states; ++n) {
    Number* target = checkpoints + (chunk * shape.states + n) * shape.channels + block.channel;
    for (int64_t i = 0; i < block.count; ++i) target[i] = block.state[n].lanes[i];
  }
}

template <typename Number>
void write_last_state(const ChannelBlock<Number>& block, const ScanShape& shape, int64_t sequence,
                      Number* last_state) {
  for (int64_t i = 0; i < block.count; ++i) {
    Number* target = last_state + (sequence * shape.channels + block.channel + i) * shape.states;
    for (int64_t n = 0; n < shape.states; ++n) target[n] = block.state[n].lanes[i];
  }
}

// All runs of a part for the channels begin .. end - 1.
template <typename Scalar>
void scan_part(const ScanInputs<Scalar>& in, const RunList& list, int64_t part, int64_t begin,
               int64_t end, const ScanResults<Scalar>& results) {
  using Number = Compute<Scalar>;
  Worker<Number> worker(in.shape.states);
  for (int64_t channel = begin; channel < end; channel += kLanesOf<Number>) {
    worker.blocks.emplace_back(in, channel);
  }
  for (int64_t r = list.part_begin[part]; r < list.part_begin[part + 1]; ++r) {
    const Run& run = list.runs[r];
    for (ChannelBlock<Number>& block : worker.blocks) {
      if (run.starts()) block.reset();
      if (results.checkpoints != nullptr && run.begin % kScanChunk == 0) {
        write_checkpoint(block, in.shape, run.begin / kScanChunk, results.checkpoints);
      }
    }
    const Run* next = r + 1 < list.part_begin[part + 1] ? &run + 1 : nullptr;
    scan_run(in, run, next, worker, results.y);
    if (run.ends() && results.last_state != nullptr) {
      for (const ChannelBlock<Number>& block : worker.blocks) {
        write_last_state(block, in.shape, run.sequence, results.last_state);
      }
    }
  }
}

}  // namespace

#define P3D_CLONE_FOR(Scalar)                                                                 \
  P3D_CLONES void walk_run(const ScanInputs<Scalar>& in, const RunTile<Compute<Scalar>>& run, \
                           RowsAhead<Scalar>& ahead, ChannelBlock<Compute<Scalar>>& block,    \
                           StepTile<Compute<Scalar>>& steps, Scalar* y) {                     \
    walk_run_inline(in, run, ahead, block, steps, y);                                         \
  }
P3D_FOR_EACH_STORAGE(P3D_CLONE_FOR)
#undef P3D_CLONE_FOR

template <typename Scalar>
void selective_scan(const ScanInputs<Scalar>& inputs, const ScanResults<Scalar>& results,
                    int threads) {
  using Number = Compute<Scalar>;
  const ScanShape& shape = inputs.shape;
  if (results.last_state != nullptr) {  // of empty sequences
    std::fill_n(results.last_state, shape.layout.sequences * shape.channels * shape.states,
                Number{0});
  }
  const RunList list = cut_into_runs(shape.layout);
  const ChannelShares shares(shape, list.parts(), kLanesOf<Number>, threads);
  for_each_dynamic(shares.workers, list.parts() * shares.count, 1, [&](int64_t task) {
    const int64_t begin = task % shares.count * shares.channels;
    const int64_t end = std::min(shape.channels, begin + shares.channels);
    scan_part(inputs, list, task / shares.count, begin, end, results);
  });
}

#define P3D_INSTANTIATE(Scalar) \
  template void selective_scan(const ScanInputs<Scalar>&, const ScanResults<Scalar>&, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
