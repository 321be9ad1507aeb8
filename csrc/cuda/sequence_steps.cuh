// Steps of a walk through sequences laid end to end, see common/scan_layout.h.
#pragma once

#include "common/launch.cuh"
#include "common/scan_layout.h"
#include "cuda/segment_search.cuh"

namespace perception3d {
namespace cuda {

__device__ __forceinline__ int64_t place_of_step(const SequenceLayout& layout, int64_t step) {
  return layout.reverse ? layout.length - 1 - step : step;
}

__device__ __forceinline__ int64_t row_of_step(const SequenceLayout& layout, int64_t step,
                                               const char* what) {
  const int64_t place = place_of_step(layout, step);
  if (layout.order == nullptr) return place;
  const int64_t row = __ldg(layout.order + place);
  check_index(row, layout.length, what);
  return row;
}

__device__ __forceinline__ int64_t sequence_of_step(const SequenceLayout& layout, int64_t step) {
  return segment_of_place(layout.offsets, 0, layout.sequences - 1, place_of_step(layout, step));
}

// Whether a step is the first of its sequence; the step after the last one counts as one.
__device__ __forceinline__ bool starts_sequence(const SequenceLayout& layout, int64_t step) {
  if (step >= layout.length) return true;
  const int64_t sequence = sequence_of_step(layout, step);
  const int64_t place = place_of_step(layout, step);
  return layout.reverse ? layout.offsets[sequence + 1] == place + 1
                        : layout.offsets[sequence] == place;
}

// Which of the 64 steps from `first` on start a sequence, as bits; all threads of the block get
// them.  `halves`: two words of shared memory.  Steps before 0 start none.
__device__ __forceinline__ uint64_t find_starts(const SequenceLayout& layout, int64_t first,
                                                uint32_t* halves) {
  if (threadIdx.x < 64) {
    const int64_t step = first + threadIdx.x;
    const uint32_t starts = __ballot_sync(0xffffffffu, step >= 0 && starts_sequence(layout, step));
    if (threadIdx.x % 32 == 0) halves[threadIdx.x / 32] = starts;
  }
  __syncthreads();
  return static_cast<uint64_t>(halves[1]) << 32 | halves[0];
}

}  // namespace cuda
}  // namespace perception3d
