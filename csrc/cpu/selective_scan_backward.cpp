#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/scan_adjoint.h"
#include "cpu/selective_scan.h"

namespace perception3d {
namespace {

// The gradients of B and C are sums over channels.  Each sum is made of the sums over groups of
// this many vectors of channels, whichever thread makes them, added in order.
constexpr int64_t kBlocksPerGroup = 2;
// Steps between two additions of groups, and a bound on the numbers kept until then.
constexpr int64_t kPanelSteps = 1024;
constexpr int64_t kPanelNumbers = 1 << 21;

template <typename Scalar>
struct Work {
  using Number = Compute<Scalar>;
  const ScanInputs<Scalar>& in;
  const Rows<const Scalar>& result_grad;
  const Number* checkpoints;
  const ScanGradients<Scalar>& gradients;
};

template <typename Number>
struct Worker {
  RunTile<Number> run;
  AdjointTile<Number> tile;

  explicit Worker(int64_t states) : run(states) {}
};

// One run for some blocks.  sums: of the group of the first block; the next group's lie
// `group_stride` numbers further on.
template <typename Scalar, typename Number>
P3D_INLINE void go_back_inline(const Work<Scalar>& work, const Run& run, const Run* next,
                               Worker<Number>& worker, AdjointBlock<Number>* blocks, int64_t count,
                               Number* sums, int64_t group_stride) {
  const ScanInputs<Scalar>& in = work.in;
  load_run(in, run, next, worker.run);
  RowsAhead<Scalar> ahead;
  look_ahead(worker.run, blocks[0].channel, count, {in.u, in.delta, in.gate, work.result_grad},
             ahead);
  for (int64_t i = 0; i < count; ++i) {
    AdjointBlock<Number>& block = blocks[i];
    Number* group_sums = sums + i / kBlocksPerGroup * group_stride;
    if (i % kBlocksPerGroup == 0) {
      std::fill_n(group_sums, run.length * 2 * worker.run.states, Number{0});
    }
    load_adjoint(in, work.result_grad, worker.run, block, worker.tile);
    for (int64_t first = 0; first < worker.run.states; first += kStatesAtOnce) {
      if (worker.tile.steps.regular) {
        recompute_states<true>(worker.run, first, ahead, block, worker.tile);
      } else {
        recompute_states<false>(worker.run, first, ahead, block, worker.tile);
      }
      walk_back(worker.run, first, block, worker.tile, group_sums);
    }
    write_adjoint(in, worker.run, block, worker.tile, work.gradients);
  }
}

// Sums over groups, in order, of one step: first the gradient of B, then that of C.
template <typename Scalar>
P3D_INLINE void add_groups_inline(const Compute<Scalar>* sums, int64_t groups, int64_t group_stride,
                                  int64_t padded, int64_t states, Compute<Scalar>* total,
                                  Scalar* b_grad, Scalar* c_grad) {
  std::fill_n(total, 2 * padded, Compute<Scalar>{0});
  for (int64_t group = 0; group < groups; ++group) {
    const Compute<Scalar>* part = sums + group * group_stride;
    for (int64_t n = 0; n < 2 * padded; ++n) total[n] += part[n];
  }
  for (int64_t n = 0; n < states; ++n) {
    store(total[n], b_grad[n]);
    store(total[padded + n], c_grad[n]);
  }
}

#define P3D_CLONE_FOR(Scalar)                                                                     \
  P3D_CLONES void go_back(const Work<Scalar>& work, const Run& run, const Run* next,              \
                          Worker<Compute<Scalar>>& worker, AdjointBlock<Compute<Scalar>>* blocks, \
                          int64_t count, Compute<Scalar>* sums, int64_t group_stride) {           \
    go_back_inline(work, run, next, worker, blocks, count, sums, group_stride);                   \
  }                                                                                               \
  P3D_CLONES void add_groups(const Compute<Scalar>* sums, int64_t groups, int64_t group_stride,   \
                             int64_t padded, int64_t states, Compute<Scalar>* total,              \
                             Scalar* b_grad, Scalar* c_grad) {                                    \
    add_groups_inline(sums, groups, group_stride, padded, states, total, b_grad, c_grad);         \
  }
P3D_FOR_EACH_STORAGE(P3D_CLONE_FOR)
#undef P3D_CLONE_FOR

template <typename Number>
void prepare_block(const Run& run, const ScanShape& shape, const Number* checkpoints,
                   AdjointBlock<Number>& block) {
  if (run.ends()) std::fill(block.carry.begin(), block.carry.end(), Slot<Number>{});
  if (run.starts()) {
    block.reset();
    return;
  }
  for (int64_t n = 0; n < shape.states; ++n) {  // then it starts a chunk
    const Number* source =
        checkpoints + (run.begin / kScanChunk * shape.states + n) * shape.channels + block.channel;
    for (int64_t i = 0; i < block.count; ++i) block.state[n].lanes[i] = source[i];
  }
}

// The runs of every part, cut into panels of at most `steps` steps from the last run on:
// panel k of part p holds the runs bounds[p][k + 1] .. bounds[p][k] - 1.
std::vector<std::vector<int64_t>> cut_into_panels(const RunList& list, int64_t steps) {
  std::vector<std::vector<int64_t>> bounds(list.parts());
  for (int64_t part = 0; part < list.parts(); ++part) {
    int64_t run = list.part_begin[part + 1];
    bounds[part].push_back(run);
    int64_t taken = 0;
    while (run > list.part_begin[part]) {
      const int64_t length = list.runs[run - 1].length;
      if (taken + length > steps) {
        bounds[part].push_back(run);
        taken = 0;
      }
      taken += length;
      --run;
    }
    if (bounds[part].back() != run) bounds[part].push_back(run);
  }
  return bounds;
}

// Panel k of every part at once, then the sums over groups, then panel k + 1.
template <typename Scalar>
class BackwardPass {
  using Number = Compute<Scalar>;

 public:
  BackwardPass(const Work<Scalar>& work, int threads)
      : work_(work),
        shape_(work.in.shape),
        list_(cut_into_runs(shape_.layout)),
        padded_(padded_states(shape_.states)),
        group_channels_(kBlocksPerGroup * kLanesOf<Number>),
        groups_((shape_.channels + group_channels_ - 1) / group_channels_),
        shares_(shape_, list_.parts(), group_channels_, threads),
        blocks_(list_.parts()) {
    const int64_t numbers = std::max<int64_t>(list_.parts() * groups_ * 2 * padded_, 1);
    const int64_t chunks =
        std::clamp<int64_t>(kPanelNumbers / numbers / kScanChunk, 1, kPanelSteps / kScanChunk);
    panel_steps_ = chunks * kScanChunk;
    bounds_ = cut_into_panels(list_, panel_steps_);
    sums_.resize(list_.parts() * groups_ * panel_steps_ * 2 * padded_);
    for (auto& blocks : blocks_) {
      for (int64_t channel = 0; channel < shape_.channels; channel += kLanesOf<Number>) {
        blocks.emplace_back(work.in, channel);
      }
    }
    for (int64_t task = 0; task < list_.parts() * shares_.count; ++task) {
      workers_.push_back(std::make_unique<Worker<Number>>(shape_.states));
    }
  }

  void run() {
    size_t panels = 0;
    for (const auto& bounds : bounds_) panels = std::max(panels, bounds.size() - 1);
    for (size_t panel = 0; panel < panels; ++panel) {
      for_each_dynamic(shares_.workers, list_.parts() * shares_.count, 1, [&](int64_t task) {
        if (has_panel(task / shares_.count, panel)) walk_panel(task, panel);
      });
      for (int64_t part = 0; part < list_.parts(); ++part) {
        if (has_panel(part, panel)) add_panel(part, panel);
      }
    }
    write_parameters();
  }

 private:
  bool has_panel(int64_t part, size_t panel) const { return panel + 1 < bounds_[part].size(); }
  int64_t first_step(int64_t part, size_t panel) const {
    return list_.runs[bounds_[part][panel + 1]].begin;
  }
  int64_t group_stride() const { return panel_steps_ * 2 * padded_; }
  Number* sums_of(int64_t part, int64_t group, int64_t step) {
    return sums_.data() + (part * groups_ + group) * group_stride() + step * 2 * padded_;
  }

  // The channels of one task through the runs of one panel, last run first.
  void walk_panel(int64_t task, size_t panel) {
    const int64_t part = task / shares_.count, share = task % shares_.count;
    const int64_t blocks_per_share = shares_.channels / kLanesOf<Number>;
    const int64_t total_blocks = static_cast<int64_t>(blocks_[part].size());
    const int64_t first = share * blocks_per_share;
    const int64_t count = std::min(blocks_per_share, total_blocks - first);
    const int64_t start = first_step(part, panel);
    for (int64_t r = bounds_[part][panel] - 1; r >= bounds_[part][panel + 1]; --r) {
      const Run& run = list_.runs[r];
      for (int64_t i = 0; i < count; ++i) {
        prepare_block(run, shape_, work_.checkpoints, blocks_[part][first + i]);
      }
      const Run* next = r > list_.part_begin[part] ? &run - 1 : nullptr;
      go_back(work_, run, next, *workers_[task], blocks_[part].data() + first, count,
              sums_of(part, first / kBlocksPerGroup, run.begin - start), group_stride());
    }
  }

  void add_panel(int64_t part, size_t panel) {
    const int64_t start = first_step(part, panel);
    const Run& last = list_.runs[bounds_[part][panel] - 1];
    const int64_t steps = last.begin + last.length - start;
    for_each_block(shares_.workers, steps, [&](int, int64_t begin, int64_t end) {
      std::vector<Number> total(2 * padded_);
      for (int64_t step = begin; step < end; ++step) {
        const int64_t row = row_of_step(shape_.layout, start + step);
        add_groups(sums_of(part, 0, step), groups_, group_stride(), padded_, shape_.states,
                   total.data(), work_.gradients.B + row * shape_.states,
                   work_.gradients.C + row * shape_.states);
      }
    });
  }

  // Sums over the parts, in order.
  void write_parameters() {
    const ScanGradients<Scalar>& out = work_.gradients;
    for (int64_t channel = 0; channel < shape_.channels; ++channel) {
      const int64_t block = channel / kLanesOf<Number>, lane = channel % kLanesOf<Number>;
      double skip = 0, bias = 0;
      for (const auto& blocks : blocks_) {
        skip += blocks[block].skip_sum.lanes[lane];
        bias += blocks[block].bias_sum.lanes[lane];
      }
      if (out.skip != nullptr) out.skip[channel] = static_cast<Number>(skip);
      if (out.delta_bias != nullptr) out.delta_bias[channel] = static_cast<Number>(bias);
      for (int64_t n = 0; n < shape_.states; ++n) {
        double decay = 0;
        for (const auto& blocks : blocks_) decay += blocks[block].decay_sum[n].lanes[lane];
        out.A[channel * shape_.states + n] = static_cast<Number>(decay);
      }
    }
  }

  const Work<Scalar>& work_;
  const ScanShape shape_;
  const RunList list_;
  const int64_t padded_;          // states
  const int64_t group_channels_;  // channels per group
  const int64_t groups_;
  const ChannelShares shares_;
  std::vector<std::vector<AdjointBlock<Number>>> blocks_;  // by part
  std::vector<std::unique_ptr<Worker<Number>>> workers_;   // by task
  int64_t panel_steps_;
  std::vector<std::vector<int64_t>> bounds_;  // panels by part
  std::vector<Number> sums_;                  // (parts, groups, steps, 2, states)
};

}  // namespace

template <typename Scalar>
void selective_scan_backward(const ScanInputs<Scalar>& inputs, const Rows<const Scalar>& grad,
                             const Compute<Scalar>* checkpoints,
                             const ScanGradients<Scalar>& gradients, int threads) {
  const Work<Scalar> work{inputs, grad, checkpoints, gradients};
  BackwardPass<Scalar>(work, threads).run();
}

#define P3D_INSTANTIATE(Scalar)                                                               \
  template void selective_scan_backward(const ScanInputs<Scalar>&, const Rows<const Scalar>&, \
                                        const Compute<Scalar>*, const ScanGradients<Scalar>&, \
                                        int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
