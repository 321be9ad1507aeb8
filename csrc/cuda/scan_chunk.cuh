// One chunk of a scan and some of its channels in shared memory, and the threads that walk it.
//
// A block has 128 threads.  `group` neighbouring threads share a channel, eight states each; the
// block walks 128 / group channels through the 64 steps of its chunk.
#pragma once

#include "common/exp2.cuh"
#include "common/launch.cuh"
#include "common/packed.cuh"
#include "common/selective_scan.h"
#include "cuda/sequence_steps.cuh"

namespace perception3d {
namespace cuda {

constexpr int kScanThreads = 128;
constexpr int kScanWarps = kScanThreads / 32;
constexpr int kThreadStates = 8;
constexpr int kSteps = static_cast<int>(kScanChunk);
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float scan_sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// log(1 + e^x), x itself above 20 as in torch.
__device__ __forceinline__ float scan_softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

__device__ __forceinline__ float softplus_slope(float x) {
  return x > 20.0f ? 1.0f : scan_sigmoid(x);
}

// Where a block is: its chunk and its channels.
struct ChunkPlace {
  int64_t chunk, first_step;
  int length;             // steps, up to kSteps
  int64_t first_channel;  // of the block
  int channels;           // of the block, some may lie beyond the last one

  __device__ __forceinline__ ChunkPlace(const ScanShape& shape, int group)
      : chunk(blockIdx.x),
        first_step(chunk * kScanChunk),
        length(static_cast<int>(min(kScanChunk, shape.layout.length - first_step))),
        first_channel(static_cast<int64_t>(blockIdx.y) * (kScanThreads / group)),
        channels(kScanThreads / group) {}
};

// The thread's channel and states.
struct WalkerPlace {
  int column;       // among the block's channels
  int64_t channel;  // may lie beyond the last one: then it walks along and writes nothing
  int part;         // among the threads of the channel
  int first_state;  // may lie beyond the last one too

  __device__ __forceinline__ WalkerPlace(const ChunkPlace& place, int group)
      : column(threadIdx.x / group),
        channel(place.first_channel + column),
        part(threadIdx.x % group),
        first_state(part * kThreadStates) {}
};

// Tiles have rows of `channels` (columns of u, delta, ...) or of `states` numbers (B, C), padded.
struct ChunkTile {
  int64_t* row;      // (kSteps)
  float *delta, *x;  // (kSteps, channels)
  float *b, *c;      // (kSteps, states)
  int channels, states;

  // `memory`: chunk_tile_bytes(group) bytes.
  __device__ __forceinline__ ChunkTile(void* memory, int group)
      : row(static_cast<int64_t*>(memory)),
        delta(reinterpret_cast<float*>(row + kSteps)),
        x(delta + kSteps * (kScanThreads / group)),
        b(x + kSteps * (kScanThreads / group)),
        c(b + kSteps * group * kThreadStates),
        channels(kScanThreads / group),
        states(group * kThreadStates) {}
};

inline int64_t chunk_tile_bytes(int group) {
  const int64_t numbers = 2 * (kScanThreads / group) + 2 * group * kThreadStates;
  return kSteps * (static_cast<int64_t>(sizeof(int64_t)) + numbers * 4);
}

// Threads per channel, a power of two: 8 states each.
inline int threads_per_channel(int64_t states) {
  int group = 1;
  while (group * kThreadStates < states) group *= 2;
  return group;
}
constexpr int64_t kMostStates = 32 * kThreadStates;

// Calls body(index, row or -1, channel or -1) for each number of a (kSteps, channels) tile; -1
// where there is no such step or channel.  Neighbouring threads have neighbouring channels.
template <typename Body>
__device__ __forceinline__ void for_each_number(const ChunkPlace& place, const int64_t* row,
                                                int64_t all_channels, const Body& body) {
  const int column = threadIdx.x % place.channels;
  const int64_t channel = place.first_channel + column;
#pragma unroll 4
  for (int t = threadIdx.x / place.channels; t < kSteps; t += kScanThreads / place.channels) {
    body(t * place.channels + column, row[t], channel < all_channels ? channel : -1);
  }
}

__device__ __forceinline__ void load_row_numbers(const ScanShape& shape, const ChunkPlace& place,
                                                 int64_t* row) {
  if (threadIdx.x < kSteps) {
    const int64_t step = place.first_step + threadIdx.x;
    row[threadIdx.x] = step < shape.layout.length
                           ? cuda::row_of_step(shape.layout, step, "selective_scan: order")
                           : -1;
  }
}

// delta after bias and softplus, 0 where there is none.
template <typename Scalar>
__device__ __forceinline__ float raw_delta(const ScanInputs<Scalar>& in, int64_t row,
                                           int64_t channel) {
  const float bias = in.delta_bias == nullptr ? 0.0f : __ldg(in.delta_bias + channel);
  return load(in.delta.data[row * in.delta.stride + channel]) + bias;
}

template <typename Scalar>
__device__ __forceinline__ float step_delta(const ScanInputs<Scalar>& in, int64_t row,
                                            int64_t channel) {
  const float raw = raw_delta(in, row, channel);
  return in.softplus ? scan_softplus(raw) : raw;
}

// Rows of B or C, zeros beyond the last state and the last step.
template <typename Scalar>
__device__ __forceinline__ void load_states(const Rows<const Scalar>& source, const int64_t* row,
                                            int64_t states, int padded, float* target) {
  const int shift = __ffs(padded) - 1;  // a power of two
  for (int i = threadIdx.x; i < kSteps * padded; i += kScanThreads) {
    const int t = i >> shift, n = i - (t << shift);
    const bool there = row[t] >= 0 && n < states;
    target[i] = there ? load(source.data[row[t] * source.stride + n]) : 0.0f;
  }
}

// A * log2(e) of the thread's states, 0 beyond the last one.
template <typename Scalar>
__device__ __forceinline__ void load_decay(const ScanInputs<Scalar>& in, const WalkerPlace& walker,
                                           float (&decay)[kThreadStates]) {
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    const int64_t state = walker.first_state + n;
    const bool there = walker.channel < in.shape.channels && state < in.shape.states;
    decay[n] = there ? __ldg(in.A + walker.channel * in.shape.states + state) * kLog2E : 0.0f;
  }
}

// The thread's numbers of an array (chunks, N, D), 0 where there are none.
__device__ __forceinline__ void load_chunk_states(const float* source, const ScanShape& shape,
                                                  int64_t chunk, const WalkerPlace& walker,
                                                  float (&numbers)[kThreadStates]) {
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    const int64_t state = walker.first_state + n;
    const bool there = source != nullptr && walker.channel < shape.channels && state < shape.states;
    numbers[n] =
        there ? source[(chunk * shape.states + state) * shape.channels + walker.channel] : 0.0f;
  }
}

__device__ __forceinline__ void store_chunk_states(const float (&numbers)[kThreadStates],
                                                   const ScanShape& shape, int64_t chunk,
                                                   const WalkerPlace& walker, float* target) {
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    const int64_t state = walker.first_state + n;
    if (walker.channel < shape.channels && state < shape.states) {
      target[(chunk * shape.states + state) * shape.channels + walker.channel] = numbers[n];
    }
  }
}

// Eight numbers side by side in shared memory.
__device__ __forceinline__ void load_eight(const float* source, float (&numbers)[kThreadStates]) {
#pragma unroll
  for (int first = 0; first < kThreadStates; first += 4) {
    const auto four = load_packed<4>(source + first);
#pragma unroll
    for (int i = 0; i < 4; ++i) numbers[first + i] = four.number[i];
  }
}

// Sum over the threads of a channel.
__device__ __forceinline__ float sum_over_parts(float value, int group) {
  for (int flip = 1; flip < group; flip *= 2) value += __shfl_xor_sync(0xffffffffu, value, flip);
  return value;
}

}  // namespace cuda
}  // namespace perception3d
