#include "cpu/causal_conv1d.h"

#include <algorithm>
#include <vector>

#include "cpu/conv_taps.h"

namespace perception3d {
namespace {

// Rows are fetched this many steps ahead: neighbouring rows of a wider tensor are too far apart for
// the hardware to foresee, and an order may lead anywhere, also with what is written.
constexpr int64_t kReadAhead = 6;
constexpr int64_t kWriteAhead = 2;

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

template <bool kToWrite, typename Scalar>
P3D_INLINE void fetch_row(const Scalar* row, int64_t channels) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Scalar));
  for (int64_t channel = 0; channel < channels; channel += kLine) {
    __builtin_prefetch(row + channel, kToWrite);
  }
}

// One vector of channels of one step.  kTaps: the number of taps, 0 if any.
template <int kTaps, typename Scalar>
P3D_INLINE void convolve_block(const Scalar* const* row, int64_t taps, int64_t channel,
                               int64_t count, const Slot<Compute<Scalar>>* weight, bool silu,
                               Scalar* y) {
  using Number = Compute<Scalar>;
  const int64_t all = kTaps > 0 ? kTaps : taps;
  Slot<Number> sum = weight[all];
  for (int64_t j = 0; j < all; ++j) {
    Slot<Number> x;
    load_part(row[j] + channel, count, x);
    sum.lanes += weight[j].lanes * x.lanes;
  }
  if (silu) {
    Vector<Number> open;
    sigmoid<Number>(sum.lanes, open);
    sum.lanes *= open;
  }
  store_part(sum, count, y + channel);
}

template <int kTaps, typename Scalar>
P3D_INLINE void convolve_run_inline(const CausalConv<Scalar>& conv,
                                    const TapTable<Compute<Scalar>>& table, const Run& run,
                                    const Scalar** row, const Scalar* zeros, Scalar* y) {
  constexpr int64_t kLanes = kLanesOf<Compute<Scalar>>;
  point_at_rows(conv, run, row);
  const int64_t places = run.length + conv.taps - 1;
  for (int64_t i = 0; i < places && row[i] == nullptr; ++i) row[i] = zeros;
  for (int64_t t = 0; t < run.length; ++t) {
    const int64_t last = conv.layout.length - 1;
    const int64_t read = row_of_step(conv.layout, std::min(run.begin + t + kReadAhead, last));
    fetch_row<false>(conv.x.data + read * conv.x.stride, conv.channels);
    if (conv.layout.order != nullptr) {
      const int64_t written = row_of_step(conv.layout, std::min(run.begin + t + kWriteAhead, last));
      fetch_row<true>(y + written * conv.channels, conv.channels);
    }
    Scalar* target = y + row_of_step(conv.layout, run.begin + t) * conv.channels;
    for (int64_t block = 0; block < table.blocks; ++block) {
      const int64_t channel = block * kLanes;
      convolve_block<kTaps>(row + t, conv.taps, channel, std::min(kLanes, conv.channels - channel),
                            table.of_block(block), conv.silu, target);
    }
  }
}

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

}  // namespace

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
