#include "cuda/scan_carry.h"
#include "cuda/scan_chunk.cuh"
#include "cuda/selective_scan.h"

namespace perception3d {
namespace cuda {
namespace {

// Sum of delta over a chunk, and whether a sequence starts in it.
struct ChunkEnds {
  float* delta_sums;  // (chunks, D)
  int32_t* cuts;      // (chunks)
  float* states;      // (chunks, N, D)
};

template <typename Scalar>
__device__ __forceinline__ void load_tile(const ScanInputs<Scalar>& in, const ChunkPlace& place,
                                          bool with_c, ChunkTile& tile) {
  load_row_numbers(in.shape, place, tile.row);
  __syncthreads();
  for_each_number(place, tile.row, in.shape.channels, [&](int i, int64_t row, int64_t channel) {
    const bool there = row >= 0 && channel >= 0;
    const float delta = there ? step_delta(in, row, channel) : 0.0f;
    const float u = there ? load(in.u.data[row * in.u.stride + channel]) : 0.0f;
    tile.delta[i] = delta;
    tile.x[i] = delta * u;
  });
  load_states(in.B, tile.row, in.shape.states, tile.states, tile.b);
  if (with_c) load_states(in.C, tile.row, in.shape.states, tile.states, tile.c);
}

// State of the thread one step on.
__device__ __forceinline__ void take_step(const ChunkTile& tile, const WalkerPlace& walker, int t,
                                          const float (&decay)[kThreadStates],
                                          float (&state)[kThreadStates]) {
  const float delta = tile.delta[t * tile.channels + walker.column];
  const float input = tile.x[t * tile.channels + walker.column];
  float b[kThreadStates];
  load_eight(tile.b + t * tile.states + walker.first_state, b);
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    state[n] = exp2_approximate(delta * decay[n]) * state[n] + input * b[n];
  }
}

// What leaves each chunk when nothing enters it.
template <typename Scalar>
__global__ void __launch_bounds__(kScanThreads)
    find_ends(ScanInputs<Scalar> in, int group, ChunkEnds ends) {
  P3D_SHARED(uint32_t, halves, 2);
  const ChunkPlace place(in.shape, group);
  const WalkerPlace walker(place, group);
  ChunkTile tile(dynamic_shared<unsigned char>(), group);
  load_tile(in, place, false, tile);
  const uint64_t starts = find_starts(in.shape.layout, place.first_step, halves);
  float decay[kThreadStates], state[kThreadStates] = {};
  load_decay(in, walker, decay);
  float delta_sum = 0;
  for (int t = 0; t < place.length; ++t) {
    if (starts >> t & 1) {
#pragma unroll
      for (int n = 0; n < kThreadStates; ++n) state[n] = 0;
    }
    take_step(tile, walker, t, decay, state);
    delta_sum += tile.delta[t * tile.channels + walker.column];
  }
  store_chunk_states(state, in.shape, place.chunk, walker, ends.states);
  if (walker.part == 0 && walker.channel < in.shape.channels) {
    ends.delta_sums[place.chunk * in.shape.channels + walker.channel] = delta_sum;
  }
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    const uint64_t own = place.length < kSteps ? (uint64_t{1} << place.length) - 1 : ~uint64_t{0};
    ends.cuts[place.chunk] = (starts & own) == 0 ? kNoCut : (starts & 1) != 0 ? kCutAtOnce : kCut;
  }
}

// y of every step, over what was delta * u in the tile.
template <typename Scalar>
__global__ void __launch_bounds__(kScanThreads)
    write_results(ScanInputs<Scalar> in, int group, ScanResults<Scalar> results) {
  P3D_SHARED(uint32_t, halves, 2);
  const ChunkPlace place(in.shape, group);
  const WalkerPlace walker(place, group);
  ChunkTile tile(dynamic_shared<unsigned char>(), group);
  load_tile(in, place, true, tile);
  const uint64_t starts = find_starts(in.shape.layout, place.first_step, halves);
  const uint64_t ends = starts >> 1;  // of all steps but the last, which looks for itself
  float decay[kThreadStates], state[kThreadStates];
  load_decay(in, walker, decay);
  load_chunk_states(results.checkpoints, in.shape, place.chunk, walker, state);
  for (int t = 0; t < place.length; ++t) {
    if (starts >> t & 1) {
#pragma unroll
      for (int n = 0; n < kThreadStates; ++n) state[n] = 0;
    }
    take_step(tile, walker, t, decay, state);
    float c[kThreadStates], y = 0;
    load_eight(tile.c + t * tile.states + walker.first_state, c);
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) y += state[n] * c[n];
    y = sum_over_parts(y, group);
    __syncwarp();
    if (walker.part == 0) tile.x[t * tile.channels + walker.column] = y;
    const int64_t step = place.first_step + t;
    const bool last = t + 1 < kSteps ? (ends >> t & 1) : starts_sequence(in.shape.layout, step + 1);
    if (results.last_state != nullptr && last) {
      const int64_t sequence = sequence_of_step(in.shape.layout, step);
      for (int n = 0; n < kThreadStates; ++n) {
        const int64_t number = walker.first_state + n;
        if (walker.channel < in.shape.channels && number < in.shape.states) {
          const int64_t row = sequence * in.shape.channels + walker.channel;
          results.last_state[row * in.shape.states + number] = state[n];
        }
      }
    }
  }
  __syncthreads();
  for_each_number(place, tile.row, in.shape.channels, [&](int i, int64_t row, int64_t channel) {
    if (row < 0 || channel < 0) return;
    float y = tile.x[i];
    if (in.skip != nullptr) {
      y += __ldg(in.skip + channel) * load(in.u.data[row * in.u.stride + channel]);
    }
    if (in.gate.data != nullptr) {
      const float gate = load(in.gate.data[row * in.gate.stride + channel]);
      y *= gate * scan_sigmoid(gate);
    }
    store(y, results.y[row * in.shape.channels + channel]);
  });
}

}  // namespace

int64_t scan_workspace_bytes(const ScanShape& shape) {
  const int64_t chunks = (shape.layout.length + kScanChunk - 1) / kScanChunk;
  return chunks * (shape.channels + 1) * 4;
}

template <typename Scalar>
Status selective_scan(const ScanInputs<Scalar>& in, const ScanResults<Scalar>& results,
                      void* workspace, Stream stream) {
  const ScanShape& shape = in.shape;
  const int64_t chunks = (shape.layout.length + kScanChunk - 1) / kScanChunk;
  Status status = nullptr;
  if (results.last_state != nullptr) {  // of empty sequences
    const int64_t numbers = shape.layout.sequences * shape.channels * shape.states;
    status = fill_bytes(results.last_state, 0, numbers * sizeof(float), stream);
  }
  if (status != nullptr || chunks * shape.channels == 0) return status;
  const int group = threads_per_channel(shape.states);
  const int64_t channels = kScanThreads / group;
  const Grid grid(chunks, (shape.channels + channels - 1) / channels);
  const ChunkEnds ends{
      static_cast<float*>(workspace),
      reinterpret_cast<int32_t*>(static_cast<float*>(workspace) + chunks * shape.channels),
      results.checkpoints};
  status = launch(find_ends<Scalar>, grid, kScanThreads, chunk_tile_bytes(group), stream, in, group,
                  ends);
  if (status != nullptr) return status;
  status = carry_over_chunks(shape, in.A, ends.delta_sums, ends.cuts, false, results.checkpoints,
                             stream);
  if (status != nullptr) return status;
  return launch(write_results<Scalar>, grid, kScanThreads, chunk_tile_bytes(group), stream, in,
                group, results);
}

#define P3D_INSTANTIATE(Scalar)                                                                \
  template Status selective_scan(const ScanInputs<Scalar>&, const ScanResults<Scalar>&, void*, \
                                 Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
