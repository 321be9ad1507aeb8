#include <algorithm>
#include <vector>

#include "cpu/conv_taps.h"

namespace perception3d {
namespace {

// The gradients of weight and bias are sums over steps: per run in Number, then run after run and
// strip after strip in double, a strip being 1/64 of all runs.
constexpr int64_t kStrips = 64;
constexpr int64_t kRunsPerStrip = 16;

// One run and one vector of channels.  Index i stands for step run.begin - (K - 1) + i; what lies
// outside the sequence is 0.
template <typename Scalar>
struct ConvTile {
  using Number = Compute<Scalar>;
  int64_t places;                  // length + 2 (K - 1)
  std::vector<int64_t> row;        // (places), -1 outside
  std::vector<Slot<Number>> x;     // (places)
  std::vector<Slot<Number>> grad;  // (places) of the sum before f
  std::vector<Slot<Number>> sums;  // (blocks, K + 1) gradients of weight and bias of one run

  ConvTile(int64_t taps, int64_t blocks)
      : row(kScanChunk + 2 * taps), x(row.size()), grad(row.size()), sums(blocks * (taps + 1)) {}
};

// Starts the way from memory of one vector of channels of a step.
template <typename Scalar>
P3D_INLINE void fetch_ahead(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                            int64_t step, int64_t channel) {
  const int64_t row = row_of_step(conv.layout, std::min(step, conv.layout.length - 1));
  __builtin_prefetch(conv.x.data + row * conv.x.stride + channel);
  __builtin_prefetch(grad.data + row * grad.stride + channel);
}

template <typename Scalar>
P3D_INLINE void gather_places(const Rows<const Scalar>& source, const int64_t* row, int64_t places,
                              int64_t channel, int64_t count, Slot<Compute<Scalar>>* target) {
  for (int64_t i = 0; i < places; ++i) {
    if (row[i] < 0) {
      target[i] = Slot<Compute<Scalar>>{};
    } else {
      load_part(source.data + row[i] * source.stride + channel, count, target[i]);
    }
  }
}

// Turns gradients of f(sum) at the places from K - 1 on into gradients of the sum.
template <int kTaps, typename Scalar, typename Number>
P3D_INLINE void differentiate_silu(int64_t any_taps, const Slot<Number>* weight,
                                   ConvTile<Scalar>& tile) {
  const int64_t taps = kTaps > 0 ? kTaps : any_taps;
  for (int64_t i = taps - 1; i < tile.places; ++i) {
    Vector<Number> sum = weight[taps].lanes, open;
    for (int64_t j = 0; j < taps; ++j) {
      sum += weight[j].lanes * tile.x[i - taps + 1 + j].lanes;
    }
    sigmoid<Number>(sum, open);
    tile.grad[i].lanes *= open * (Number{1} + sum * (Number{1} - open));
  }
}

template <int kTaps, typename Scalar>
P3D_INLINE void go_back_inline(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                               const TapTable<Compute<Scalar>>& table, const Run& run,
                               ConvTile<Scalar>& tile, Scalar* grad_x) {
  using Number = Compute<Scalar>;
  constexpr int64_t kLanes = kLanesOf<Number>;
  const int64_t taps = kTaps > 0 ? kTaps : conv.taps, before = taps - 1;
  tile.places = run.length + 2 * before;
  for (int64_t i = 0; i < tile.places; ++i) {
    const int64_t step = run.begin - before + i;
    const bool inside = step >= run.sequence_begin && step < run.sequence_end;
    tile.row[i] = inside ? row_of_step(conv.layout, step) : -1;
  }
  for (int64_t block = 0; block < table.blocks; ++block) {
    const int64_t channel = block * kLanes, count = std::min(kLanes, conv.channels - channel);
    const Slot<Number>* weight = table.of_block(block);
    gather_places(conv.x, tile.row.data(), tile.places, channel, count, tile.x.data());
    gather_places(grad, tile.row.data() + before, tile.places - before, channel, count,
                  tile.grad.data() + before);
    if (conv.silu) differentiate_silu<kTaps>(taps, weight, tile);
    Slot<Number>* sums = tile.sums.data() + block * (taps + 1);
    std::fill_n(sums, taps + 1, Slot<Number>{});
    for (int64_t i = before; i < before + run.length; ++i) {
      fetch_ahead(conv, grad, run.begin + i - before + kScanChunk, channel);
      Slot<Number> x_grad{};
      for (int64_t j = 0; j < taps; ++j) {
        x_grad.lanes += weight[j].lanes * tile.grad[i + before - j].lanes;
        sums[j].lanes += tile.grad[i].lanes * tile.x[i - before + j].lanes;
      }
      sums[taps].lanes += tile.grad[i].lanes;
      store_part(x_grad, count, grad_x + tile.row[i] * conv.channels + channel);
    }
  }
}

#define P3D_CLONE_FOR(Scalar)                                                             \
  P3D_CLONES void go_back(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad, \
                          const TapTable<Compute<Scalar>>& table, const Run& run,         \
                          ConvTile<Scalar>& tile, Scalar* grad_x) {                       \
    if (conv.taps == 4) {                                                                 \
      go_back_inline<4>(conv, grad, table, run, tile, grad_x);                            \
    } else {                                                                              \
      go_back_inline<0>(conv, grad, table, run, tile, grad_x);                            \
    }                                                                                     \
  }
P3D_FOR_EACH_STORAGE(P3D_CLONE_FOR)
#undef P3D_CLONE_FOR

}  // namespace

template <typename Scalar>
void causal_conv1d_backward(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                            Scalar* grad_x, Compute<Scalar>* grad_weight,
                            Compute<Scalar>* grad_bias, int threads) {
  using Number = Compute<Scalar>;
  const TapTable<Number> table(conv);
  const RunList list = cut_into_runs(conv.layout);
  const int64_t runs = static_cast<int64_t>(list.runs.size());
  const int64_t strips = std::clamp<int64_t>(runs / kRunsPerStrip, 1, kStrips);
  const int64_t numbers = static_cast<int64_t>(table.slots.size()) * kLanesOf<Number>;
  std::vector<double> totals(strips * numbers);
  for_each_block(conv_workers(conv, threads), strips, [&](int, int64_t first, int64_t last) {
    ConvTile<Scalar> tile(conv.taps, table.blocks);
    for (int64_t strip = first; strip < last; ++strip) {
      double* total = totals.data() + strip * numbers;
      const int64_t end = block_begin(runs, strips, strip + 1);
      for (int64_t r = block_begin(runs, strips, strip); r < end; ++r) {
        go_back(conv, grad, table, list.runs[r], tile, grad_x);
        for (int64_t i = 0; i < numbers; ++i) {
          total[i] += tile.sums[i / kLanesOf<Number>].lanes[i % kLanesOf<Number>];
        }
      }
    }
  });
  for (int64_t strip = 1; strip < strips; ++strip) {
    for (int64_t i = 0; i < numbers; ++i) totals[i] += totals[strip * numbers + i];
  }
  for (int64_t channel = 0; channel < conv.channels; ++channel) {
    const int64_t block = channel / kLanesOf<Number>, lane = channel % kLanesOf<Number>;
    const double* total = totals.data() + block * (conv.taps + 1) * kLanesOf<Number> + lane;
    for (int64_t j = 0; j < conv.taps; ++j) {
      grad_weight[channel * conv.taps + j] = static_cast<Number>(total[j * kLanesOf<Number>]);
    }
    if (grad_bias != nullptr) {
      grad_bias[channel] = static_cast<Number>(total[conv.taps * kLanesOf<Number>]);
    }
  }
}

#define P3D_INSTANTIATE(Scalar)                                                              \
  template void causal_conv1d_backward(const CausalConv<Scalar>&, const Rows<const Scalar>&, \
                                       Scalar*, Compute<Scalar>*, Compute<Scalar>*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
