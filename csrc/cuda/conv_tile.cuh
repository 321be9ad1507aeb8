// A few steps of a causal convolution: a thread has kPack channels and walks the steps of a tile,
// the latest rows in registers.
//
// Kernels know kTaps taps; a convolution with fewer leaves the oldest `unused` of them out.
#pragma once

#include "common/causal_conv1d.h"
#include "common/launch.cuh"
#include "common/packed.cuh"
#include "cuda/sequence_steps.cuh"

namespace perception3d {
namespace cuda {

constexpr int kConvThreads = 64;
constexpr int kConvSteps = 32;  // of a tile
constexpr int kFewTaps = 4;
constexpr int kManyTaps = 16;
// Rows whose loads are under way together.
constexpr int kRowsAtOnce = 4;

// A tile with the rows that it needs on either side, from step first - (kTaps - 1) on.
template <int kTaps>
struct ConvTile {
  static constexpr int kBefore = kTaps - 1;

  int64_t first;    // step
  int length;       // steps of the tile
  uint64_t starts;  // bit i: step first - kBefore + i starts a sequence
  int64_t* row;     // (64) of the same steps, -1 outside

  // `row`, `halves`: shared memory, 64 and 2 numbers.
  __device__ __forceinline__ ConvTile(const SequenceLayout& layout, int64_t* row_, uint32_t* halves)
      : first(static_cast<int64_t>(blockIdx.x) * kConvSteps),
        length(static_cast<int>(min(static_cast<int64_t>(kConvSteps), layout.length - first))),
        row(row_) {
    const int64_t step = first - kBefore + threadIdx.x;
    row[threadIdx.x] = step >= 0 && step < layout.length
                           ? cuda::row_of_step(layout, step, "causal_conv1d: order")
                           : -1;
    starts = find_starts(layout, first - kBefore, halves);
  }

  __device__ __forceinline__ bool starts_at(int i) const { return starts >> i & 1; }
};

// The numbers of the thread's channels that all steps share.
template <int kTaps, int kPack>
struct ConvWeights {
  float weight[kTaps][kPack], bias[kPack];

  template <typename Scalar>
  __device__ __forceinline__ ConvWeights(const CausalConv<Scalar>& conv, int64_t channel) {
    const int unused = kTaps - static_cast<int>(conv.taps);
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        weight[j][c] =
            j < unused ? 0.0f : __ldg(conv.weight + (channel + c) * conv.taps + j - unused);
      }
      bias[c] = conv.bias == nullptr ? 0.0f : __ldg(conv.bias + channel + c);
    }
  }
};

// The rows of the latest kTaps steps, the oldest first; zeros before the start of the sequence.
template <int kTaps, int kPack>
struct ConvWindow {
  float x[kTaps][kPack];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int c = 0; c < kPack; ++c) x[j][c] = 0;
    }
  }

  template <typename Scalar>
  __device__ __forceinline__ void take(const Packed<Scalar, kPack>& numbers, bool start) {
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
#pragma unroll
      for (int j = 0; j + 1 < kTaps; ++j) x[j][c] = start ? 0.0f : x[j + 1][c];
      x[kTaps - 1][c] = load(numbers.number[c]);
    }
  }

  // The convolution at the latest step; taps left out are not even multiplied.
  __device__ __forceinline__ void convolve(const ConvWeights<kTaps, kPack>& weights, int unused,
                                           float (&sum)[kPack]) const {
#pragma unroll
    for (int c = 0; c < kPack; ++c) sum[c] = weights.bias[c];
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (j < unused) continue;
#pragma unroll
      for (int c = 0; c < kPack; ++c) sum[c] += weights.weight[j][c] * x[j][c];
    }
  }
};

__device__ __forceinline__ float conv_sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Channels of a row, zeros where there is no row.
template <int kPack, typename Scalar>
__device__ __forceinline__ Packed<Scalar, kPack> load_channels(const Rows<const Scalar>& source,
                                                               int64_t row, int64_t channel) {
  if (row < 0) return Packed<Scalar, kPack>{};
  return load_packed<kPack>(source.data + row * source.stride + channel);
}

// Whether all rows of an array can be read four channels at a time.
template <typename Scalar>
bool can_read_four(const Rows<const Scalar>& source, int64_t channels) {
  return channels % 4 == 0 && source.stride % 4 == 0 &&
         reinterpret_cast<uintptr_t>(source.data) % (4 * sizeof(Scalar)) == 0;
}

}  // namespace cuda
}  // namespace perception3d
