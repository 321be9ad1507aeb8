#include "cpu/subm_conv.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "cpu/gemm_tile.h"
#include "cpu/neighbour_check.h"
#include "cpu/packed_weight.h"
#include "cpu/vectors.h"

namespace perception3d {
namespace {

// Output rows whose sums stay in the second-level cache while all taps pass.
constexpr int64_t kTurnRows = 384;
// Rows of a panel used at once: with panels of 256 bytes, 32 kB, which fits the first-level cache.
constexpr int64_t kDepth = 128;
constexpr int64_t kFlopsPerWorker = 1 << 21;

// Voxels of some rows at one tap: input rows, and output rows counted from the first one.
struct Pairs {
  std::vector<int32_t> in, out;
  int64_t count = 0;

  explicit Pairs(int64_t most) : in(most), out(most) {}

  void list(const int32_t* neighbours, int64_t taps, int64_t rows) {
    count = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const int32_t found = neighbours[row * taps];
      in[count] = found;
      out[count] = static_cast<int32_t>(row);
      count += found >= 0;
    }
  }
};

// Numbers to compute with, from the features: themselves, or converted into `space`.
template <typename Scalar>
P3D_INLINE const Compute<Scalar>* as_numbers(const Scalar* row, int64_t count,
                                             Compute<Scalar>* space) {
  if constexpr (std::is_same_v<Scalar, Compute<Scalar>>) {
    return row;
  } else {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      Numbers<Compute<Scalar>, 16> numbers;
      load_vector<16>(row + i, numbers);
      store_vector<16>(numbers, space + i);
    }
    for (; i < count; ++i) space[i] = load(row[i]);
    return space;
  }
}

// sums[out] += features[in] W for all pairs; sums has rows of `padded` numbers, `packed` is the
// weight of the tap.
template <typename Scalar>
P3D_INLINE void multiply_pairs_of(const Scalar* features, const Pairs& pairs, int64_t depth,
                                  int64_t padded, const Compute<Scalar>* packed,
                                  Compute<Scalar>* sums) {
  typedef Compute<Scalar> Number;
  Number space[kTileRows * kDepth];
  for (int64_t first = 0; first < padded; first += kPanel<Number>) {
    const int64_t width = std::min(kPanel<Number>, padded - first);
    for (int64_t begin = 0; begin < depth; begin += kDepth) {
      Tile<Number> tile;
      tile.depth = std::min(kDepth, depth - begin);
      tile.step = 1;
      tile.panel = packed + first * depth + begin * width;
      tile.stride = width;
      for (int64_t i = 0; i < pairs.count; i += kTileRows) {
        const int64_t rows = std::min(kTileRows, pairs.count - i);
        for (int64_t r = 0; r < rows; ++r) {
          tile.rows[r] = as_numbers(features + pairs.in[i + r] * depth + begin, tile.depth,
                                    space + r * kDepth);
          tile.sums[r] = sums + pairs.out[i + r] * padded + first;
        }
        multiply_rows(tile, rows, width / kUnit<Number>, Sums::kContinue);
      }
    }
  }
}

#define P3D_MULTIPLY_PAIRS(Scalar)                                                          \
  P3D_CLONES void multiply_pairs(const Scalar* features, const Pairs& pairs, int64_t depth, \
                                 int64_t padded, const Compute<Scalar>* packed,             \
                                 Compute<Scalar>* sums) {                                   \
    multiply_pairs_of(features, pairs, depth, padded, packed, sums);                        \
  }
P3D_FOR_EACH_STORAGE(P3D_MULTIPLY_PAIRS)
#undef P3D_MULTIPLY_PAIRS

}  // namespace

template <typename Scalar>
int64_t subm_conv(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
                  const ConvWeight<Scalar>& weight, const Scalar* bias, Scalar* result,
                  int threads) {
  typedef Compute<Scalar> Number;
  const int64_t columns = shape.out_channels;
  const PackedWeight<Number> packed(shape.taps, shape.in_channels, columns, weight, threads);
  const int64_t padded = packed.padded();
  std::vector<Number> start(padded);
  for (int64_t o = 0; o < columns && bias != nullptr; ++o) start[o] = load(bias[o]);

  const int64_t turns = (shape.rows + kTurnRows - 1) / kTurnRows;
  const int workers =
      worker_count(threads, shape.rows * shape.taps * shape.in_channels * columns, kFlopsPerWorker);
  std::atomic<int64_t> bad_row{-1};
  for_each_dynamic(workers, turns, 1, [&](int64_t turn) {
    const int64_t begin = turn * kTurnRows;
    const int64_t rows = std::min(kTurnRows, shape.rows - begin);
    const int64_t bad = find_bad_row(neighbours, shape.taps, begin, begin + rows, shape.inputs);
    if (bad >= 0) {
      bad_row = bad;
      return;
    }
    std::vector<Number> sums(rows * padded);
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(start.data(), padded, sums.data() + row * padded);
    Pairs pairs(rows);
    for (int64_t tap = 0; tap < shape.taps; ++tap) {
      pairs.list(neighbours + begin * shape.taps + tap, shape.taps, rows);
      multiply_pairs(features, pairs, shape.in_channels, padded, packed.of_tap(tap), sums.data());
    }
    for (int64_t row = 0; row < rows; ++row) {
      Scalar* target = result + (begin + row) * columns;
      for (int64_t o = 0; o < columns; ++o) store(sums[row * padded + o], target[o]);
    }
  });
  return bad_row;
}

#define P3D_INSTANTIATE(Scalar)                                               \
  template int64_t subm_conv(const ConvShape&, const Scalar*, const int32_t*, \
                             const ConvWeight<Scalar>&, const Scalar*, Scalar*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
