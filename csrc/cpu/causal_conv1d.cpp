#include "cpu/causal_conv1d.h"

#include <algorithm>
#include <vector>

#include "cpu/conv_taps.h"

namespace perception3d {
namespace {

// Rows are fetched this many steps ahead: neighbouring rows of a wider tensor are too far apart for
// the hardware to foresee, and an order may lead anywhere, also with what is written.
constexpr int64_t kReadAhead = 10;
constexpr int64_t kWriteAhead = 4;

// The rows of a run and of the taps before it; null before the start of the sequence.
template <typename Scalar>
void point_at_rows(const CausalConv<Scalar>& conv, const Run& run, const Scalar** row) {
  const int64_t before = conv.taps - 1;
  for (int64_t i = 0; i < run.length + before; ++i) {
    const int64_t step = run.begin - before + i;
    row[i] = step < run.sequence_begin
                 ? nullptr
                 : conv.x.data + row_of_step(conv.layout, step) * conv.x.stride;
  }
}

template <typename Number>
P3D_INLINE void activate(bool silu, Vector<Number>& sum) {
  if (!silu) return;
  Vector<Number> open;
  sigmoid<Number>(sum, open);
  sum *= open;
}

// One vector of channels of kSteps steps that follow each other, so that weights and rows are
// loaded once for all of them.  kTaps: the number of taps, 0 if any.
template <int kTaps, int kSteps, typename Scalar>
P3D_INLINE void convolve_block(const Scalar* const* row, int64_t taps, int64_t channel,
                               const Slot<Compute<Scalar>>* weight, bool silu,
                               Scalar* const (&y)[kSteps]) {
  using Number = Compute<Scalar>;
  const int64_t all = kTaps > 0 ? kTaps : taps;
  Vector<Number> sum[kSteps];
  for (int step = 0; step < kSteps; ++step) sum[step] = weight[all].lanes;
#pragma GCC unroll 8
  for (int64_t j = 0; j < all + kSteps - 1; ++j) {
    Vector<Number> x;
    load_vector<kLanesOf<Number>>(row[j] + channel, x);
#pragma GCC unroll 2
    for (int step = 0; step < kSteps; ++step) {
      if (j >= step && j - step < all) sum[step] += weight[j - step].lanes * x;
    }
  }
#pragma GCC unroll 2
  for (int step = 0; step < kSteps; ++step) {
    activate<Number>(silu, sum[step]);
    store_vector<kLanesOf<Number>>(sum[step], y[step] + channel);
  }
}

// The last channels of one step, fewer than a vector; apart, so that the sums above need no memory.
template <typename Scalar>
P3D_INLINE void convolve_rest(const Scalar* const* row, int64_t taps, int64_t channel,
                              int64_t count, const Slot<Compute<Scalar>>* weight, bool silu,
                              Scalar* y) {
  using Number = Compute<Scalar>;
  Slot<Number> sum = weight[taps], x;
  for (int64_t j = 0; j < taps; ++j) {
    load_some(row[j] + channel, count, x);
    sum.lanes += weight[j].lanes * x.lanes;
  }
  Vector<Number> result = sum.lanes;
  activate<Number>(silu, result);
  sum.lanes = result;
  store_some(sum, count, y + channel);
}

// All channels of the steps t .. t + kSteps - 1 of a run.
template <int kTaps, int kSteps, typename Scalar>
P3D_INLINE void convolve_steps(const CausalConv<Scalar>& conv,
                               const TapTable<Compute<Scalar>>& table, const Run& run,
                               const Scalar* const* row, int64_t t, Scalar* y) {
  constexpr int64_t kLanes = kLanesOf<Compute<Scalar>>;
  const int64_t whole = conv.channels / kLanes, rest = conv.channels % kLanes;
  const int64_t last = conv.layout.length - 1;
  const Scalar* soon[kSteps];
  Scalar *soon_written[kSteps], *target[kSteps];
  for (int step = 0; step < kSteps; ++step) {
    const int64_t place = run.begin + t + step;
    const int64_t read = row_of_step(conv.layout, std::min(place + kReadAhead, last));
    const int64_t written = row_of_step(conv.layout, std::min(place + kWriteAhead, last));
    soon[step] = conv.x.data + read * conv.x.stride;
    soon_written[step] = y + written * conv.channels;
    target[step] = y + row_of_step(conv.layout, place) * conv.channels;
  }
  for (int64_t block = 0; block < whole; ++block) {
    const int64_t channel = block * kLanes;
    // Line by line between the products: all lines of a row at once would wait in a queue.
    for (int step = 0; step < kSteps; ++step) {
      __builtin_prefetch(soon[step] + channel, 0);
      __builtin_prefetch(soon_written[step] + channel, 1);
    }
    convolve_block<kTaps, kSteps>(row + t, conv.taps, channel, table.of_block(block), conv.silu,
                                  target);
  }
  for (int step = 0; rest > 0 && step < kSteps; ++step) {
    convolve_rest(row + t + step, conv.taps, whole * kLanes, rest, table.of_block(whole), conv.silu,
                  target[step]);
  }
}

template <int kTaps, typename Scalar>
P3D_INLINE void convolve_run_inline(const CausalConv<Scalar>& conv,
                                    const TapTable<Compute<Scalar>>& table, const Run& run,
                                    const Scalar** row, const Scalar* zeros, Scalar* y) {
  point_at_rows(conv, run, row);
  const int64_t places = run.length + conv.taps - 1;
  for (int64_t i = 0; i < places && row[i] == nullptr; ++i) row[i] = zeros;
  int64_t t = 0;
  for (; t + 2 <= run.length; t += 2) convolve_steps<kTaps, 2>(conv, table, run, row, t, y);
  if (t < run.length) convolve_steps<kTaps, 1>(conv, table, run, row, t, y);
}

}  // namespace

#define P3D_CLONE_FOR(Scalar)                                                          \
  P3D_CLONES void convolve_run(const CausalConv<Scalar>& conv,                         \
                               const TapTable<Compute<Scalar>>& table, const Run& run, \
                               const Scalar** row, const Scalar* zeros, Scalar* y) {   \
    if (conv.taps == 4) {                                                              \
      convolve_run_inline<4>(conv, table, run, row, zeros, y);                         \
    } else {                                                                           \
      convolve_run_inline<0>(conv, table, run, row, zeros, y);                         \
    }                                                                                  \
  }
P3D_FOR_EACH_STORAGE(P3D_CLONE_FOR)
#undef P3D_CLONE_FOR

template <typename Scalar>
void causal_conv1d(const CausalConv<Scalar>& conv, Scalar* y, int threads) {
  const TapTable<Compute<Scalar>> table(conv);
  const RunList list = cut_into_runs(conv.layout);
  const std::vector<Scalar> zeros(conv.channels, Scalar{});
  const int64_t runs = static_cast<int64_t>(list.runs.size());
  for_each_block(conv_workers(conv, threads), runs, [&](int, int64_t begin, int64_t end) {
    std::vector<const Scalar*> row(kScanChunk + conv.taps);
    for (int64_t r = begin; r < end; ++r) {
      convolve_run(conv, table, list.runs[r], row.data(), zeros.data(), y);
    }
  });
}

#define P3D_INSTANTIATE(Scalar) \
  template void causal_conv1d(const CausalConv<Scalar>&, Scalar*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
