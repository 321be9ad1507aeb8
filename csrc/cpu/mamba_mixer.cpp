#include "cpu/mamba_mixer.h"

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "cpu/conv_taps.h"
#include "cpu/lane_sums.h"
#include "cpu/row_map.h"
#include "cpu/scan_walk.h"

namespace perception3d {
namespace {

// Steps that are worked on together: with the history of four taps whole tiles of rows.
constexpr int64_t kBlockSteps = 21 * kTileRows - 3;
constexpr int64_t kBlockRuns = (kBlockSteps + kScanChunk - 1) / kScanChunk;

// Neighbouring steps of one sequence.  The convolution also looks at the `history` steps before.
struct StepBlock {
  int64_t begin, count, history;
  bool starts;  // the sequence
};

std::vector<StepBlock> list_blocks(const SequenceLayout& layout, int64_t taps) {
  std::vector<StepBlock> blocks;
  int64_t step = 0;
  for (int64_t i = 0; i < layout.sequences; ++i) {
    const int64_t sequence = layout.reverse ? layout.sequences - 1 - i : i;
    const int64_t first = step;
    const int64_t end = first + layout.offsets[sequence + 1] - layout.offsets[sequence];
    for (; step < end; step += std::min(kBlockSteps, end - step)) {
      blocks.push_back({step, std::min(kBlockSteps, end - step), std::min(taps - 1, step - first),
                        step == first});
    }
  }
  return blocks;
}

// Whose turn it is to take the states of a vector of channels further.
struct alignas(64) Turn {
  std::atomic<int64_t> block{0};

  void wait_for(int64_t number) const {
    constexpr int kPatience = 64;
    for (int tries = 0; block.load(std::memory_order_acquire) != number; ++tries) {
      if (tries > kPatience) std::this_thread::yield();
    }
  }
  void pass_on() { block.fetch_add(1, std::memory_order_release); }
};

// What the threads share.  They take blocks in the order of the walk, and hand the states of every
// vector of channels from one block to the next.
template <typename Number>
struct MixerCall {
  MixerCall(const MambaMixer<Number>& mixer, Number* result, int threads)
      : mixer(mixer),
        result(result),
        in(mixer.in, threads),
        project(mixer.project, threads),
        step(mixer.step, threads),
        out(mixer.out, threads),
        inner(out.depth),
        conv_table(conv_of(nullptr, 0)),
        blocks(list_blocks(mixer.layout, mixer.taps)),
        row(mixer.layout.length),
        turns((inner + kLanesOf<Number> - 1) / kLanesOf<Number>),
        nothing(std::max(inner, mixer.rows.columns)) {
    for (int64_t s = 0; s < mixer.layout.length; ++s) row[s] = row_of_step(mixer.layout, s);
    for (int64_t channel = 0; channel < inner; channel += kLanesOf<Number>) {
      channels.emplace_back(scan_of(nullptr, nullptr, nullptr, nullptr, 0), channel);
    }
  }

  // `steps` rows of 2 D numbers, in the order of the walk.
  CausalConv<Number> conv_of(const Number* rows, int64_t steps) const {
    return {{steps, 1, nullptr, nullptr, false},
            inner,
            mixer.taps,
            {rows, 2 * inner},
            mixer.conv_weight,
            mixer.conv_bias,
            true};
  }

  // All in the order of the walk; gates lie behind the inner rows, B and C behind the low ranks.
  ScanInputs<Number> scan_of(const Number* u, const Number* delta, const Number* projected,
                             const Number* gate, int64_t steps) const {
    const Number* into = projected == nullptr ? nullptr : projected + step.depth;
    const Number* out_of = projected == nullptr ? nullptr : into + mixer.states;
    return {{{steps, 1, nullptr, nullptr, false}, inner, mixer.states},
            {u, inner},
            {delta, inner},
            {into, project.columns},
            {out_of, project.columns},
            {gate, 2 * inner},
            mixer.A,
            mixer.skip,
            mixer.step_bias,
            true};
  }

  // The rows of a block, of a matrix like mixer.rows.
  SomeRows<Number> rows_of(const RowMatrix<Number>& matrix, const StepBlock& block) const {
    return {matrix.data, matrix.data == nullptr ? 0 : block.count, matrix.columns, matrix.step,
            row.data() + block.begin};
  }

  int64_t products() const {
    int64_t sum = mixer.states * inner;
    for (const RowMap<Number>* map : {&in, &project, &step, &out}) sum += map->depth * map->columns;
    return sum;
  }

  const MambaMixer<Number>& mixer;
  Number* result;
  RowMap<Number> in, project, step, out;
  int64_t inner;
  TapTable<Number> conv_table;
  std::vector<StepBlock> blocks;
  std::vector<int64_t> row;  // of every step
  std::vector<ChannelBlock<Number>> channels;
  std::vector<Turn> turns;
  Pad<Number> nothing;  // zeros: rows before a sequence, and what a norm adds
};

// What one thread keeps of a block, in the order of the walk.
template <typename Number>
struct MixerScratch {
  explicit MixerScratch(const MixerCall<Number>& call)
      : narrow((kBlockSteps + call.mixer.taps) * call.mixer.rows.columns),
        wide((kBlockSteps + call.mixer.taps) * 2 * call.inner),
        u((kBlockSteps + call.mixer.taps) * call.inner),
        delta(kBlockSteps * call.inner),
        projected(kBlockSteps * call.project.columns),
        convolved(kBlockSteps + 2 * call.mixer.taps) {
    runs.reserve(kBlockRuns);
    for (int64_t r = 0; r < kBlockRuns; ++r) runs.emplace_back(call.mixer.states);
  }

  Pad<Number> narrow;  // what goes in, later what comes out
  Pad<Number> wide;    // inner rows, gates
  Pad<Number> u;       // later y
  Pad<Number> delta, projected;
  std::vector<const Number*> convolved;
  std::vector<RunTile<Number>> runs;
  StepTile<Number> steps;
};

// target = weight * x / rms(x), x = row + added unless that is null.
template <typename Number>
P3D_INLINE void normalise_row(const Number* row, const Number* added, const Number* weight,
                              int64_t columns, Number epsilon, Number* target) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t whole = columns / lanes * lanes;
  Vector<Number> squares{}, numbers, others;
  Number rest = 0;
  for (int64_t c = 0; c < whole; c += lanes) {
    load_vector<lanes>(row + c, numbers);
    if (added != nullptr) {
      load_vector<lanes>(added + c, others);
      numbers += others;
    }
    squares += numbers * numbers;
    store_vector<lanes>(numbers, target + c);
  }
  for (int64_t c = whole; c < columns; ++c) {
    target[c] = row[c] + (added == nullptr ? Number{0} : added[c]);
    rest += target[c] * target[c];
  }
  const Number mean = (sum_lanes<Number>(squares) + rest) / static_cast<Number>(columns);
  const Number scale = 1 / std::sqrt(mean + epsilon);
  for (int64_t c = 0; c < whole; c += lanes) {
    load_vector<lanes>(target + c, numbers);
    load_vector<lanes>(weight + c, others);
    numbers = numbers * scale * others;
    store_vector<lanes>(numbers, target + c);
  }
  for (int64_t c = whole; c < columns; ++c) target[c] *= scale * weight[c];
}

// Up to the scan: scratch.wide, u, delta and projected.
template <typename Number>
P3D_INLINE void enter_block(const MixerCall<Number>& call, const StepBlock& block,
                            const StepBlock& next, MixerScratch<Number>& scratch) {
  const MambaMixer<Number>& mixer = call.mixer;
  const int64_t inner = call.inner, width = mixer.rows.columns;
  const int64_t steps = block.history + block.count;
  const auto held = [](const Number* data, int64_t count, int64_t columns, int64_t step) {
    return SomeRows<Number>{data, count, columns, step, nullptr};
  };
  Number *narrow = scratch.narrow.get(), *wide = scratch.wide.get(), *u = scratch.u.get();
  const int64_t* row = call.row.data() + block.begin - block.history;
  for (int64_t s = 0; s < steps; ++s) {
    const Number* added =
        mixer.added.data == nullptr ? nullptr : mixer.added.data + row[s] * mixer.added.step;
    normalise_row(mixer.rows.data + row[s] * mixer.rows.step, added, mixer.norm, width,
                  mixer.epsilon, narrow + s * width);
  }
  map_block<Number>(call.in, {held(narrow, steps, width, width), wide, nullptr, nullptr,
                              call.rows_of(mixer.rows, next)});
  convolve_run(call.conv_of(wide, steps), call.conv_table,
               Run{block.history, block.count, 0, 0, steps}, scratch.convolved.data(),
               call.nothing.get(), u);
  u += block.history * inner;
  Number* projected = scratch.projected.get();
  map_block<Number>(call.project, {held(u, block.count, inner, inner), projected, nullptr, nullptr,
                                   call.rows_of(mixer.added, next)});
  map_block<Number>(call.step, {held(projected, block.count, call.step.depth, call.project.columns),
                                scratch.delta.get(),
                                nullptr,
                                nullptr,
                                {}});
}

// The scan, in turn with the other blocks: u becomes y.
template <typename Number>
P3D_INLINE void scan_block(MixerCall<Number>& call, int64_t number, MixerScratch<Number>& scratch) {
  const StepBlock& block = call.blocks[number];
  Number* u = scratch.u.get() + block.history * call.inner;
  const Number* gate = scratch.wide.get() + block.history * 2 * call.inner + call.inner;
  const ScanInputs<Number> in =
      call.scan_of(u, scratch.delta.get(), scratch.projected.get(), gate, block.count);
  int64_t runs = 0;
  for (int64_t begin = 0; begin < block.count; begin += kScanChunk) {
    const int64_t length = std::min(kScanChunk, block.count - begin);
    load_run(in, Run{begin, length, 0, 0, block.count}, nullptr, scratch.runs[runs++]);
  }
  RowsAhead<Number> none{};
  for (size_t i = 0; i < call.channels.size(); ++i) {
    ChannelBlock<Number>& channels = call.channels[i];
    call.turns[i].wait_for(number);
    if (block.starts) channels.reset();
    for (int64_t r = 0; r < runs; ++r) {
      walk_run(in, scratch.runs[r], none, channels, scratch.steps, u);
    }
    call.turns[i].pass_on();
  }
}

// Behind the scan.
template <typename Number>
P3D_INLINE void leave_block(const MixerCall<Number>& call, const StepBlock& block,
                            MixerScratch<Number>& scratch) {
  const MambaMixer<Number>& mixer = call.mixer;
  const int64_t inner = call.inner, width = mixer.rows.columns;
  const Number* y = scratch.u.get() + block.history * inner;
  const int64_t* row = call.row.data() + block.begin;
  Number* result = scratch.narrow.get();
  map_block<Number>(call.out,
                    {{y, block.count, inner, inner, nullptr}, result, nullptr, nullptr, {}});
  if (mixer.after_weight != nullptr) {
    const AddNorm<Number> norm{call.nothing.get(), 0, nullptr, mixer.after_weight,
                               mixer.after_bias};
    add_and_norm({&norm, 1, mixer.after_epsilon}, width, block.count, result, call.result, row);
    return;
  }
  for (int64_t s = 0; s < block.count; ++s) {
    std::copy_n(result + s * width, width, call.result + row[s] * width);
  }
}

template <typename Number>
P3D_INLINE void run_block_of(MixerCall<Number>& call, int64_t number, int64_t next,
                             MixerScratch<Number>& scratch) {
  const StepBlock& block = call.blocks[number];
  const StepBlock none{0, 0, 0, false};
  const bool is_last = next >= static_cast<int64_t>(call.blocks.size());
  enter_block(call, block, is_last ? none : call.blocks[next], scratch);
  scan_block(call, number, scratch);
  leave_block(call, block, scratch);
}

#define P3D_CLONE_FOR(Number)                                                      \
  P3D_CLONES void run_block(MixerCall<Number>& call, int64_t number, int64_t next, \
                            MixerScratch<Number>& scratch) {                       \
    run_block_of(call, number, next, scratch);                                     \
  }
P3D_CLONE_FOR(float)
P3D_CLONE_FOR(double)
#undef P3D_CLONE_FOR

}  // namespace

template <typename Number>
void mamba_mixer(const MambaMixer<Number>& mixer, Number* result, int threads) {
  constexpr int64_t kProductsPerWorker = 1 << 21;
  MixerCall<Number> call(mixer, result, threads);
  const int workers =
      worker_count(threads, mixer.layout.length * call.products(), kProductsPerWorker);
  const int64_t count = call.blocks.size();
  // A counter of our own: blocks must be begun in this order, since each waits for the one before.
  std::atomic<int64_t> begun{0};
  for_each_block(workers, workers, [&](int, int64_t, int64_t) {
    MixerScratch<Number> scratch(call);
    for (int64_t number = begun++; number < count; number = begun++) {
      run_block(call, number, number + workers, scratch);
    }
  });
}

template void mamba_mixer(const MambaMixer<float>&, float*, int);
template void mamba_mixer(const MambaMixer<double>&, double*, int);

}  // namespace perception3d
