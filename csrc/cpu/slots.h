// Vectors of channels in memory, and their way from and to rows of any storage type.
#pragma once

#include <cstdint>

#include "cpu/lane_math.h"

namespace perception3d {

// A vector in memory.
template <typename Number>
struct alignas(64) Slot {
  Vector<Number> lanes;
};

// Less than a vector, apart so that it costs the loops below nothing.
template <typename Scalar>
__attribute__((noinline)) void load_some(const Scalar* source, int64_t count,
                                         Slot<Compute<Scalar>>& slot) {
  slot = Slot<Compute<Scalar>>{};
  for (int64_t i = 0; i < count; ++i) slot.lanes[i] = load(source[i]);
}
template <typename Scalar>
__attribute__((noinline)) void store_some(const Slot<Compute<Scalar>>& slot, int64_t count,
                                          Scalar* target) {
  for (int64_t i = 0; i < count; ++i) store(slot.lanes[i], target[i]);
}

// `count` channels of a row; the lanes after them are 0.
template <typename Scalar>
P3D_INLINE void load_part(const Scalar* source, int64_t count, Slot<Compute<Scalar>>& slot) {
  if (count == kLanesOf<Compute<Scalar>>) {
    load_vector<kLanesOf<Compute<Scalar>>>(source, slot.lanes);
  } else {
    load_some(source, count, slot);
  }
}
template <typename Scalar>
P3D_INLINE void store_part(const Slot<Compute<Scalar>>& slot, int64_t count, Scalar* target) {
  if (count == kLanesOf<Compute<Scalar>>) {
    store_vector<kLanesOf<Compute<Scalar>>>(slot.lanes, target);
  } else {
    store_some(slot, count, target);
  }
}

}  // namespace perception3d
