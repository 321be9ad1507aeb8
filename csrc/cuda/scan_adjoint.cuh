// The way back through a few steps of a scan, in registers.
#pragma once

#include "cuda/scan_chunk.cuh"

namespace perception3d {
namespace cuda {

// Steps whose states a thread keeps in registers on the way back.
constexpr int kBackSteps = 8;

// Adds 16 numbers over the channels of a warp: `group` neighbouring lanes share a channel.  Every
// lane ends with the sums of 16 >> rounds of them, from number `first` on.
template <int kGroup>
struct ChannelSums {
  static constexpr int kChannels = 32 / kGroup;
  static constexpr int kRounds = kChannels >= 16  ? 4
                                 : kChannels >= 8 ? 3
                                 : kChannels >= 4 ? 2
                                 : kChannels >= 2 ? 1
                                                  : 0;
  static constexpr int kLeft = 16 >> kRounds;

  int first;

  // Whether another lane has the same sums.
  __device__ __forceinline__ bool is_twin() const {
    return kChannels == 32 && threadIdx.x % 32 > 15;
  }

  // `numbers`: 16; afterwards the lane's kLeft sums lie in front.
  __device__ __forceinline__ void add(float (&numbers)[16]) {
    const int lane = threadIdx.x % 32;
    first = 0;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int half = 8 >> round, flip = kGroup << round;
      const bool upper = (lane & flip) != 0;
      first += upper ? half : 0;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float sent = upper ? numbers[i] : numbers[i + half];
        const float kept = upper ? numbers[i + half] : numbers[i];
        numbers[i] = kept + __shfl_xor_sync(0xffffffffu, sent, flip);
      }
    }
    if (kChannels == 32) numbers[0] += __shfl_xor_sync(0xffffffffu, numbers[0], 16);
  }
};

// What one thread carries back.
struct Adjoint {
  float decay[kThreadStates], carry[kThreadStates], decay_sum[kThreadStates];
  float skip_sum;
};

}  // namespace cuda
}  // namespace perception3d
