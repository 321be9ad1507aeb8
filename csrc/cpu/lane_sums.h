// Sums of the lanes of a vector, by halves.
#pragma once

#include <cstring>

#include "cpu/vectors.h"

namespace perception3d {

template <typename Number>
using Four = Numbers<Number, 4>;

// Adds up lanes by halves until four are left.
template <typename Number>
P3D_INLINE void fold(const Vector<Number>& lanes, Four<Number>& four) {
  constexpr int count = kLanesOf<Number> / 4;
  Four<Number> part[count];
  std::memcpy(part, &lanes, sizeof(lanes));
#pragma GCC unroll 4
  for (int half = count / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
    for (int i = 0; i < half; ++i) part[i] += part[half + i];
  }
  four = part[0];
}

template <typename Number>
P3D_INLINE Number sum_lanes(const Vector<Number>& lanes) {
  Four<Number> four;
  fold<Number>(lanes, four);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// sums[i] = sum_lanes(lanes[i]), in a third of the steps.
template <typename Number>
P3D_INLINE void sum_lanes_of_four(const Vector<Number> (&lanes)[4], Four<Number>& sums) {
  Four<Number> a, b, c, d;
  fold<Number>(lanes[0], a);
  fold<Number>(lanes[1], b);
  fold<Number>(lanes[2], c);
  fold<Number>(lanes[3], d);
  const Four<Number> ab =
      Four<Number>{a[0], b[0], a[1], b[1]} + Four<Number>{a[2], b[2], a[3], b[3]};
  const Four<Number> cd =
      Four<Number>{c[0], d[0], c[1], d[1]} + Four<Number>{c[2], d[2], c[3], d[3]};
  sums = Four<Number>{ab[0], ab[1], cd[0], cd[1]} + Four<Number>{ab[2], ab[3], cd[2], cd[3]};
}

}  // namespace perception3d
