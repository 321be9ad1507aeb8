// Which segment a place belongs to.
#pragma once

#include "common/launch.cuh"

namespace perception3d {
namespace cuda {

// The last segment in [low, high] that begins at or before `place`: the one that holds it.
__device__ __forceinline__ int64_t segment_of_place(const int64_t* offsets, int64_t low,
                                                    int64_t high, int64_t place) {
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (offsets[middle] <= place) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace cuda
}  // namespace perception3d
