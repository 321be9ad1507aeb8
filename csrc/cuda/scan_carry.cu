#include "cuda/scan_carry.h"
#include "cuda/scan_chunk.cuh"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kSegments = 16;  // of chunks, one warp each

struct CarryPlace {
  int64_t channel, state;
  float decay;

  __device__ __forceinline__ CarryPlace(const ScanShape& shape, const float* A)
      : channel(static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x % 32),
        state(blockIdx.y),
        decay(channel < shape.channels ? __ldg(A + channel * shape.states + state) * kLog2E : 0) {}
};

// A warp has one segment of the chunks, a lane one channel; the block's y is a state.  Segments are
// walked twice: for what leaves them, then, with what enters them, for every chunk.
__global__ void __launch_bounds__(32 * kSegments)
    carry(ScanShape shape, int64_t chunks, const float* A, const float* delta_sums,
          const int32_t* cuts, bool backward, float* states) {
  P3D_SHARED(float, kept, 32 * kSegments);
  P3D_SHARED(float, left, 32 * kSegments);
  const CarryPlace place(shape, A);
  const bool there = place.channel < shape.channels;
  const int segment = threadIdx.x / 32;
  const int64_t begin = chunks * segment / kSegments, end = chunks * (segment + 1) / kSegments;
  float keep = 1, leaving = 0;
  bool cut = false;
  for (int64_t i = begin; there && i < end; ++i) {
    const int64_t chunk = backward ? chunks - 1 - i : i;
    const float share =
        exp2_approximate(place.decay * __ldg(delta_sums + chunk * shape.channels + place.channel));
    const float own = states[(chunk * shape.states + place.state) * shape.channels + place.channel];
    const bool stops = __ldg(cuts + chunk) != kNoCut;
    leaving = stops ? own : share * leaving + own;
    keep *= share;
    cut = cut || stops;
  }
  // What a cut stops may be infinite: it is not multiplied by 0 but left out.
  kept[threadIdx.x] = cut ? -1.0f : keep;
  left[threadIdx.x] = leaving;
  __syncthreads();
  float entering = 0;
  for (int before = 0; before < segment; ++before) {
    const int slot = before * 32 + threadIdx.x % 32;
    entering = kept[slot] < 0 ? left[slot] : kept[slot] * entering + left[slot];
  }
  for (int64_t i = begin; there && i < end; ++i) {
    const int64_t chunk = backward ? chunks - 1 - i : i;
    const float share =
        exp2_approximate(place.decay * __ldg(delta_sums + chunk * shape.channels + place.channel));
    float* slot = states + (chunk * shape.states + place.state) * shape.channels + place.channel;
    const float own = *slot;
    const int32_t cut = __ldg(cuts + chunk);
    *slot = cut == kCutAtOnce ? 0 : entering;
    entering = cut != kNoCut ? own : share * entering + own;
  }
}

}  // namespace

Status carry_over_chunks(const ScanShape& shape, const float* A, const float* delta_sums,
                         const int32_t* cuts, bool backward, float* states, Stream stream) {
  const int64_t chunks = (shape.layout.length + kScanChunk - 1) / kScanChunk;
  return launch(carry, Grid((shape.channels + 31) / 32, shape.states), 32 * kSegments, 0, stream,
                shape, chunks, A, delta_sums, cuts, backward, states);
}

}  // namespace cuda
}  // namespace perception3d
