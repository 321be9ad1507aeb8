// Place of a cell on a space-filling curve through a cube of 2^rank cells along each axis.  On host
// and device; Word is uint64_t or a vector of them.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace perception3d {

constexpr int kMaxCurveRank = 20;  // 3 * 20 bits fit a signed 64-bit number

struct SpaceCurve {
  int rank;
  int64_t shift;  // added to z, y and x
  bool hilbert;   // else Z order
};

#define P3D_CURVE P3D_HOST_DEVICE inline __attribute__((always_inline))

// Where `axis` has bit `bit`, the lower bits of z turn over; elsewhere they change places with
// those of the axis.
template <typename Word>
P3D_CURVE void turn_cube(Word& z, Word& axis, int bit) {
  const uint64_t low = (uint64_t{1} << bit) - 1;
  const Word set = -((axis >> bit) & uint64_t{1});
  const Word swapped = (z ^ axis) & ~set & low;
  z ^= swapped | (set & low);
  axis ^= swapped;
}

// Bit i goes to bit 3 i; the word has 21 bits at most.
template <typename Word>
P3D_CURVE void spread_bits(Word& word) {
  word = (word | word << 32) & uint64_t{0x001f00000000ffff};
  word = (word | word << 16) & uint64_t{0x001f0000ff0000ff};
  word = (word | word << 8) & uint64_t{0x100f00f00f00f00f};
  word = (word | word << 4) & uint64_t{0x10c30c30c30c30c3};
  word = (word | word << 2) & uint64_t{0x1249249249249249};
}

// Index of cell (z, y, x), 0 <= z, y, x < 2^rank; z holds the highest bit of every three.
// Hilbert: J. Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707, 2004.
template <typename Word>
P3D_CURVE void index_on_curve(Word z, Word y, Word x, const SpaceCurve& curve, Word& index) {
  if (curve.hilbert) {
    for (int bit = curve.rank - 1; bit > 0; --bit) {
      const uint64_t low = (uint64_t{1} << bit) - 1;
      z ^= -((z >> bit) & uint64_t{1}) & low;
      turn_cube(z, y, bit);
      turn_cube(z, x, bit);
    }
  }
  spread_bits(z);
  spread_bits(y);
  spread_bits(x);
  index = z << 2 | y << 1 | x;
  if (curve.hilbert) {  // from the Gray code
    for (int step = 1; step < 64; step *= 2) index ^= index >> step;
  }
}

#undef P3D_CURVE

}  // namespace perception3d
