#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "cpu/gemm_tile.h"
#include "cpu/neighbour_check.h"
#include "cpu/subm_conv.h"
#include "cpu/vectors.h"

namespace perception3d {
namespace {

// Pairs whose rows are gathered at once.  Sums over so many stay in registers and are then added
// to the gradient: few roundings, and an order that depends on nothing but the table.
constexpr int64_t kBlockPairs = 256;
// Rows are fetched this far ahead: they lie anywhere in memory, so no hardware foresees them.
constexpr int64_t kRowsAhead = 6;
constexpr int64_t kFlopsPerWorker = 1 << 21;
// Tasks per worker, so that the tap of all voxels, the centre, does not outlast the others.
constexpr int64_t kTasksPerWorker = 32;

// A voxel and the one at some tap of it.
struct Pair {
  int32_t in, out;
};

// The pairs of every tap, in order of the voxels.
struct PairLists {
  std::vector<Pair> pairs;
  std::vector<int64_t> first, end;  // (taps)

  PairLists(const ConvShape& shape, const int32_t* neighbours)
      : first(shape.taps), end(shape.taps) {
    const int64_t taps = shape.taps;
    count_pairs(neighbours, shape.rows, taps, end.data());
    int64_t place = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      first[tap] = place;
      place += end[tap] + 1;  // one more: see below
      end[tap] = first[tap];
    }
    pairs.resize(place);
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t tap = 0; tap < taps; ++tap) {  // no branch: nobody could predict it
        const int32_t found = neighbours[row * taps + tap];
        pairs[end[tap]] = Pair{found, static_cast<int32_t>(row)};
        end[tap] += found >= 0;
      }
    }
  }

  P3D_CLONES static void count_pairs(const int32_t* neighbours, int64_t rows, int64_t taps,
                                     int64_t* count) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t tap = 0; tap < taps; ++tap) count[tap] += neighbours[row * taps + tap] >= 0;
    }
  }
};

template <typename Scalar>
P3D_INLINE void convert_row(const Scalar* row, int64_t count, Compute<Scalar>* target) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    Numbers<Compute<Scalar>, 16> numbers;
    load_vector<16>(row + i, numbers);
    store_vector<16>(numbers, target + i);
  }
  for (; i < count; ++i) target[i] = load(row[i]);
}

template <typename Scalar>
P3D_INLINE void fetch_row(const Scalar* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(Scalar))) {
    __builtin_prefetch(row + i);
  }
}

// Input channels first .. first + channels - 1 of the gradient of one tap.
template <typename Scalar>
struct Task {
  const Scalar *features, *grad;
  int64_t in_channels, out_channels;
  const Pair *begin, *end;
  int64_t first, channels;
};

// Scratch of one task: gathered rows, and the gradient with columns filled up to whole units.
template <typename Number>
struct Scratch {
  int64_t padded, step;  // numbers from one gathered row to the next
  std::vector<Number> in, out, sums;

  // An odd step of units: columns are read, and must not fall into few sets of the cache.
  Scratch(int64_t channels, int64_t out_channels)
      : padded(units_of<Number>(out_channels) * kUnit<Number>),
        step((units_of<Number>(channels) | 1) * kUnit<Number>),
        in(kBlockPairs * step),
        out(kBlockPairs * padded),
        sums(channels * padded) {}
};

template <typename Scalar>
P3D_INLINE void sum_products_of(const Task<Scalar>& task, Scratch<Compute<Scalar>>& scratch) {
  typedef Compute<Scalar> Number;
  const int64_t padded = scratch.padded;
  for (const Pair* block = task.begin; block < task.end; block += kBlockPairs) {
    const int64_t pairs = std::min(kBlockPairs, static_cast<int64_t>(task.end - block));
    for (int64_t i = 0; i < pairs; ++i) {
      const Pair& soon = block + i + kRowsAhead < task.end ? block[i + kRowsAhead] : block[i];
      fetch_row(task.features + soon.in * task.in_channels + task.first, task.channels);
      fetch_row(task.grad + soon.out * task.out_channels, task.out_channels);
      convert_row(task.features + block[i].in * task.in_channels + task.first, task.channels,
                  scratch.in.data() + i * scratch.step);
      convert_row(task.grad + block[i].out * task.out_channels, task.out_channels,
                  scratch.out.data() + i * padded);
    }
    for (int64_t first = 0; first < padded; first += kPanelUnits * kUnit<Number>) {
      const int64_t units = std::min(kPanelUnits, (padded - first) / kUnit<Number>);
      Tile<Number> tile;
      tile.depth = pairs;
      tile.step = scratch.step;
      tile.panel = scratch.out.data() + first;
      tile.stride = padded;
      for (int64_t i = 0; i < task.channels; i += kTileRows) {
        const int64_t rows = std::min(kTileRows, task.channels - i);
        for (int64_t r = 0; r < rows; ++r) {
          tile.rows[r] = scratch.in.data() + i + r;
          tile.sums[r] = scratch.sums.data() + (i + r) * padded + first;
        }
        multiply_rows(tile, rows, units, Sums::kContinue);
      }
    }
  }
}

#define P3D_SUM_PRODUCTS(Scalar)                                                              \
  P3D_CLONES void sum_products(const Task<Scalar>& task, Scratch<Compute<Scalar>>& scratch) { \
    sum_products_of(task, scratch);                                                           \
  }
P3D_FOR_EACH_STORAGE(P3D_SUM_PRODUCTS)
#undef P3D_SUM_PRODUCTS

}  // namespace

template <typename Scalar>
int64_t subm_conv_weight_gradient(const ConvShape& shape, const Scalar* features,
                                  const Scalar* grad, const int32_t* neighbours,
                                  Scalar* grad_weight, int threads) {
  const int64_t bad = find_bad_row(neighbours, shape.taps, 0, shape.rows, shape.inputs);
  if (bad >= 0) return bad;
  const PairLists lists(shape, neighbours);
  const int64_t in = shape.in_channels, out = shape.out_channels;
  const int workers =
      worker_count(threads, static_cast<int64_t>(lists.pairs.size()) * in * out, kFlopsPerWorker);
  // Cutting the input channels changes no sum, so it may depend on the number of workers.
  const int64_t wanted = (workers - 1) * kTasksPerWorker / std::max<int64_t>(shape.taps, 1) + 1;
  const int64_t parts = std::clamp<int64_t>(in / (4 * kTileRows), 1, wanted);
  for_each_dynamic(workers, shape.taps * parts, 1, [&](int64_t number) {
    const int64_t tap = number / parts, part = number % parts;
    const int64_t first = block_begin(in, parts, part);
    const int64_t channels = block_begin(in, parts, part + 1) - first;
    Scratch<Compute<Scalar>> scratch(channels, out);
    sum_products(Task<Scalar>{features, grad, in, out, lists.pairs.data() + lists.first[tap],
                              lists.pairs.data() + lists.end[tap], first, channels},
                 scratch);
    for (int64_t i = 0; i < channels; ++i) {
      Scalar* target = grad_weight + (tap * in + first + i) * out;
      for (int64_t o = 0; o < out; ++o) store(scratch.sums[i * scratch.padded + o], target[o]);
    }
  });
  return -1;
}

#define P3D_INSTANTIATE(Scalar)                                                              \
  template int64_t subm_conv_weight_gradient(const ConvShape&, const Scalar*, const Scalar*, \
                                             const int32_t*, Scalar*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
