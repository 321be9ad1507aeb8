// Weights in the order in which the tiles of cpu/gemm_tile.h read them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/conv_shape.h"
#include "common/parallel.h"
#include "common/scalar.h"
#include "cpu/gemm_tile.h"
#include "cpu/pad.h"

namespace perception3d {

template <typename Number>
constexpr int64_t kPanel = kPanelUnits * kUnit<Number>;

// Of each tap panels of kPanel columns each (the last may be narrower), as deep as a row of the
// features is long.
template <typename Number>
class PackedWeight {
 public:
  template <typename Scalar>
  PackedWeight(int64_t taps, int64_t depth, int64_t columns, const ConvWeight<Scalar>& weight,
               int threads)
      : depth_(depth),
        padded_(units_of<Number>(columns) * kUnit<Number>),
        numbers_(taps * depth * padded_) {
    const int64_t panels = (padded_ + kPanel<Number> - 1) / kPanel<Number>;
    const int workers = worker_count(threads, taps * depth * padded_, kNumbersPerWorker);
    for_each_dynamic(workers, taps * panels, 1, [&](int64_t number) {
      const int64_t tap = number / panels, first = number % panels * kPanel<Number>;
      const ConvWeight<Scalar> part{weight.data + tap * weight.tap + first * weight.out, 0,
                                    weight.in, weight.out};
      pack_panel(part, std::min(kPanel<Number>, columns - first),
                 numbers_.get() + (tap * padded_ + first) * depth,
                 std::min(kPanel<Number>, padded_ - first));
    });
  }

  // Columns, filled up to whole units with 0.
  int64_t padded() const { return padded_; }
  const Number* of_tap(int64_t tap) const { return numbers_.get() + tap * depth_ * padded_; }

 private:
  static constexpr int64_t kNumbersPerWorker = 1 << 14;
  // Lines of the panel that are filled at once, where the numbers of a column lie side by side.
  static constexpr int64_t kLines = 16;

  template <typename Scalar>
  void pack_panel(const ConvWeight<Scalar>& weight, int64_t columns, Number* panel,
                  int64_t width) const {
    if (weight.out == 1) {
      for (int64_t i = 0; i < depth_; ++i) {
        const Scalar* source = weight.data + i * weight.in;
        for (int64_t o = 0; o < columns; ++o) panel[i * width + o] = load(source[o]);
      }
      return;
    }
    for (int64_t begin = 0; begin < depth_; begin += kLines) {
      const int64_t end = std::min(depth_, begin + kLines);
      for (int64_t o = 0; o < columns; ++o) {
        const Scalar* source = weight.data + o * weight.out;
        for (int64_t i = begin; i < end; ++i) panel[i * width + o] = load(source[i * weight.in]);
      }
    }
  }

  int64_t depth_, padded_;
  Pad<Number> numbers_;
};

}  // namespace perception3d
