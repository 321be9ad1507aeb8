#include <cstddef>

#include "cuda/column_sums.cuh"
#include "cuda/scan_adjoint.cuh"
#include "cuda/scan_carry.h"
#include "cuda/selective_scan.h"

namespace perception3d {
namespace cuda {
namespace {

// Scratch memory of one call.
struct BackwardMemory {
  float* carries;     // (chunks, N, D) adjoints that leave, then enter, each chunk
  float* delta_sums;  // (chunks, D)
  int32_t* cuts;      // (chunks)
  float* bc_sums;     // (channel blocks, L, 2, states) gradients of B and C, by steps
  float* decay_sums;  // (chunks, N, D)
  float* skip_sums;   // (chunks, D)
  float* bias_sums;   // (chunks, D)
  int64_t bytes;

  BackwardMemory(const ScanShape& shape, int group, void* memory) : bytes(0) {
    const int64_t chunks = (shape.layout.length + kScanChunk - 1) / kScanChunk;
    const int64_t channels = kScanThreads / group;
    const int64_t blocks = (shape.channels + channels - 1) / channels;
    const int64_t per_chunk = chunks * shape.channels;
    take(memory, per_chunk * shape.states, carries);
    take(memory, per_chunk, delta_sums);
    take(memory, chunks, cuts);
    take(memory, blocks * shape.layout.length * 2 * group * kThreadStates, bc_sums);
    take(memory, per_chunk * shape.states, decay_sums);
    take(memory, per_chunk, skip_sums);
    take(memory, per_chunk, bias_sums);
  }

 private:
  template <typename Number>
  void take(void* memory, int64_t count, Number*& place) {
    place = reinterpret_cast<Number*>(static_cast<char*>(memory) + bytes);
    bytes += (count * static_cast<int64_t>(sizeof(Number)) + 255) / 256 * 256;
  }
};

// Gradient of y before the gate.
template <typename Scalar>
__device__ __forceinline__ float ungated_grad(const ScanInputs<Scalar>& in,
                                              const Rows<const Scalar>& grad, int64_t row,
                                              int64_t channel) {
  const float own = load(grad.data[row * grad.stride + channel]);
  if (in.gate.data == nullptr) return own;
  const float gate = load(in.gate.data[row * in.gate.stride + channel]);
  return own * gate * scan_sigmoid(gate);
}

// What leaves each chunk backwards when nothing enters it.
template <typename Scalar>
__global__ void __launch_bounds__(kScanThreads, 5)
    find_adjoint_ends(ScanInputs<Scalar> in, Rows<const Scalar> grad, int group,
                      BackwardMemory memory) {
  P3D_SHARED(uint32_t, halves, 2);
  const ChunkPlace place(in.shape, group);
  const WalkerPlace walker(place, group);
  ChunkTile tile(dynamic_shared<unsigned char>(), group);
  load_row_numbers(in.shape, place, tile.row);
  __syncthreads();
  for_each_number(place, tile.row, in.shape.channels, [&](int i, int64_t row, int64_t channel) {
    const bool there = row >= 0 && channel >= 0;
    tile.delta[i] = there ? step_delta(in, row, channel) : 0.0f;
    tile.x[i] = there ? ungated_grad(in, grad, row, channel) : 0.0f;
  });
  load_states(in.C, tile.row, in.shape.states, tile.states, tile.c);
  const uint64_t starts = find_starts(in.shape.layout, place.first_step, halves);
  float decay[kThreadStates], carry[kThreadStates] = {};
  load_decay(in, walker, decay);
  float delta_sum = 0;
  for (int t = place.length - 1; t >= 0; --t) {
    const float delta = tile.delta[t * tile.channels + walker.column];
    const float own = tile.x[t * tile.channels + walker.column];
    float c[kThreadStates];
    load_eight(tile.c + t * tile.states + walker.first_state, c);
    const bool start = starts >> t & 1;
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) {
      const float kept = exp2_approximate(delta * decay[n]) * (own * c[n] + carry[n]);
      carry[n] = start ? 0.0f : kept;
    }
    delta_sum += delta;
  }
  store_chunk_states(carry, in.shape, place.chunk, walker, memory.carries);
  if (walker.part == 0 && walker.channel < in.shape.channels) {
    memory.delta_sums[place.chunk * in.shape.channels + walker.channel] = delta_sum;
  }
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    const uint64_t own = place.length < kSteps ? (uint64_t{1} << place.length) - 1 : ~uint64_t{0};
    memory.cuts[place.chunk] = (starts & own) != 0 ? kCut : kNoCut;
  }
}

constexpr int kKeptStarts = kSteps / kBackSteps - 1;

// Shared memory of the way back: the tile, then these.
struct BackTile : ChunkTile {
  float* grad;    // (kSteps, channels) of y before the gate
  float* starts;  // (kKeptStarts, kThreadStates, kScanThreads) states before steps 8, 16, ...
  float* sums;    // (kScanWarps, kBackSteps, 2, states) gradients of B and C of one warp

  __device__ __forceinline__ BackTile(unsigned char* memory, int group)
      : ChunkTile(memory, group),
        grad(c + kSteps * group * kThreadStates),
        starts(grad + kSteps * (kScanThreads / group)),
        sums(starts + kKeptStarts * kThreadStates * kScanThreads) {}
};

int64_t back_tile_bytes(int group) {
  const int64_t numbers = kSteps * (kScanThreads / group) +
                          kKeptStarts * kThreadStates * kScanThreads +
                          kScanWarps * kBackSteps * 2 * group * kThreadStates;
  return chunk_tile_bytes(group) + numbers * 4;
}

__device__ __forceinline__ float* kept_start(const BackTile& tile, int first, int n) {
  return tile.starts + ((first / kBackSteps - 1) * kThreadStates + n) * kScanThreads + threadIdx.x;
}

// Takes the states through the chunk and keeps those before steps 8, 16, ...
__device__ __forceinline__ void keep_starts(const BackTile& tile, const WalkerPlace& walker,
                                            uint64_t starts, const float (&decay)[kThreadStates],
                                            float (&state)[kThreadStates]) {
  for (int t = 0; t <= kKeptStarts * kBackSteps; ++t) {
    if (t > 0 && t % kBackSteps == 0) {
#pragma unroll
      for (int n = 0; n < kThreadStates; ++n) *kept_start(tile, t, n) = state[n];
    }
    const float delta = tile.delta[t * tile.channels + walker.column];
    const float input = delta * tile.x[t * tile.channels + walker.column];
    const bool start = starts >> t & 1;
    float b[kThreadStates];
    load_eight(tile.b + t * tile.states + walker.first_state, b);
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) {
      const float before = start ? 0.0f : state[n];
      state[n] = exp2_approximate(delta * decay[n]) * before + input * b[n];
    }
  }
}

// One step back.  before, after: the thread's states around it; keep: exp(delta A).  Leaves the
// gradients of u and of delta through it, and y, where u, delta and the gradient were in the tile.
template <int kGroup>
__device__ __forceinline__ void step_back(const BackTile& tile, const WalkerPlace& walker, int t,
                                          bool start, float skip,
                                          const float (&before)[kThreadStates],
                                          const float (&after)[kThreadStates],
                                          const float (&keep)[kThreadStates], Adjoint& adjoint) {
  const int place = t * tile.channels + walker.column;
  const float delta = tile.delta[place], u = tile.x[place], grad = tile.grad[place];
  const float input = delta * u;
  float b[kThreadStates], c[kThreadStates], terms[2 * kThreadStates];
  load_eight(tile.b + t * tile.states + walker.first_state, b);
  load_eight(tile.c + t * tile.states + walker.first_state, c);
  float input_grad = 0, exponent_grad = 0, y = 0;
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    const float own = grad * c[n] + adjoint.carry[n];
    terms[n] = own * input;
    terms[kThreadStates + n] = grad * after[n];
    input_grad += own * b[n];
    y += after[n] * c[n];
    const float kept = own * keep[n];
    const float through = start ? 0.0f : kept * before[n];
    exponent_grad += through * adjoint.decay[n];
    adjoint.decay_sum[n] += through * delta;
    adjoint.carry[n] = start ? 0.0f : kept;
  }
  input_grad = sum_over_parts(input_grad, kGroup);
  exponent_grad = sum_over_parts(exponent_grad, kGroup);
  y = sum_over_parts(y, kGroup);
  __syncwarp();
  if (walker.part == 0) {
    adjoint.skip_sum += grad * u;
    tile.x[place] = delta * input_grad + grad * skip;
    tile.delta[place] = u * input_grad + exponent_grad * kLn2;
    tile.grad[place] = y;
  }
  ChannelSums<kGroup> sums;
  sums.add(terms);
  float* row = tile.sums + ((threadIdx.x / 32) * kBackSteps + t % kBackSteps) * 2 * tile.states;
  if (sums.is_twin()) return;
#pragma unroll
  for (int i = 0; i < ChannelSums<kGroup>::kLeft; ++i) {
    const int number = sums.first + i;  // 0..7: B, 8..15: C
    row[number / kThreadStates * tile.states + walker.first_state + number % kThreadStates] =
        terms[i];
  }
}

// Eight steps back, from the states before them.
template <int kGroup>
__device__ __forceinline__ void steps_back(const ScanShape& shape, const ChunkPlace& place,
                                           const BackTile& tile, const WalkerPlace& walker,
                                           const float* checkpoints, int first, uint64_t starts,
                                           float skip, Adjoint& adjoint) {
  float state[kBackSteps + 1][kThreadStates], keep[kBackSteps][kThreadStates];
  if (first == 0) {
    load_chunk_states(checkpoints, shape, place.chunk, walker, state[0]);
  } else {
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) state[0][n] = *kept_start(tile, first, n);
  }
#pragma unroll
  for (int i = 0; i < kBackSteps; ++i) {
    const int t = first + i;
    const float delta = tile.delta[t * tile.channels + walker.column];
    const float input = delta * tile.x[t * tile.channels + walker.column];
    const bool start = starts >> t & 1;
    float b[kThreadStates];
    load_eight(tile.b + t * tile.states + walker.first_state, b);
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) {
      keep[i][n] = exp2_approximate(delta * adjoint.decay[n]);
      state[i + 1][n] = (start ? 0.0f : keep[i][n] * state[i][n]) + input * b[n];
    }
  }
#pragma unroll
  for (int i = kBackSteps - 1; i >= 0; --i) {
    step_back<kGroup>(tile, walker, first + i, starts >> (first + i) & 1, skip, state[i],
                      state[i + 1], keep[i], adjoint);
  }
}

// Adds the sums of the warps for eight steps and hands them out.
__device__ __forceinline__ void write_bc_sums(const ScanShape& shape, const ChunkPlace& place,
                                              const BackTile& tile, int first, float* bc_sums) {
  const int width = 2 * tile.states;
  const int64_t step = place.first_step + first;
  float* target = bc_sums + (blockIdx.y * shape.layout.length + step) * width;
  for (int i = threadIdx.x; i < kBackSteps * width; i += kScanThreads) {
    if (first + i / width >= place.length) break;
    float sum = tile.sums[i];
    for (int warp = 1; warp < kScanWarps; ++warp) sum += tile.sums[warp * kBackSteps * width + i];
    target[i] = sum;
  }
}

// delta, u and the gradient of y, then B and C.
template <typename Scalar>
__device__ __forceinline__ void load_back_tile(const ScanInputs<Scalar>& in,
                                               const Rows<const Scalar>& grad,
                                               const ChunkPlace& place, BackTile& tile) {
  load_row_numbers(in.shape, place, tile.row);
  __syncthreads();
  for_each_number(place, tile.row, in.shape.channels, [&](int i, int64_t row, int64_t channel) {
    const bool there = row >= 0 && channel >= 0;
    tile.delta[i] = there ? step_delta(in, row, channel) : 0.0f;
    tile.x[i] = there ? load(in.u.data[row * in.u.stride + channel]) : 0.0f;
    tile.grad[i] = there ? ungated_grad(in, grad, row, channel) : 0.0f;
  });
  load_states(in.B, tile.row, in.shape.states, tile.states, tile.b);
  load_states(in.C, tile.row, in.shape.states, tile.states, tile.c);
}

// Gradients of rows from what the steps have left in the tile; delta's stays there.
template <typename Scalar>
__device__ __forceinline__ void write_row_gradients(const ScanInputs<Scalar>& in,
                                                    const Rows<const Scalar>& grad,
                                                    const ChunkPlace& place, const BackTile& tile,
                                                    const ScanGradients<Scalar>& gradients) {
  for_each_number(place, tile.row, in.shape.channels, [&](int i, int64_t row, int64_t channel) {
    if (row < 0 || channel < 0) return;
    const int64_t target = row * in.shape.channels + channel;
    store(tile.x[i], gradients.u[target]);
    float delta_grad = tile.delta[i];
    if (in.softplus) delta_grad *= softplus_slope(raw_delta(in, row, channel));
    tile.delta[i] = delta_grad;
    store(delta_grad, gradients.delta[target]);
    if (in.gate.data == nullptr) return;
    float y = tile.grad[i];
    if (in.skip != nullptr) {
      y += __ldg(in.skip + channel) * load(in.u.data[row * in.u.stride + channel]);
    }
    const float gate = load(in.gate.data[row * in.gate.stride + channel]);
    const float open = scan_sigmoid(gate);
    const float own = load(grad.data[row * grad.stride + channel]);
    store(own * y * open * (1.0f + gate * (1.0f - open)), gradients.gate[target]);
  });
}

// One chunk, from its last step to its first.
template <typename Scalar, int kGroup>
__global__ void __launch_bounds__(kScanThreads)
    go_back(ScanInputs<Scalar> in, Rows<const Scalar> grad, const float* checkpoints,
            BackwardMemory memory, ScanGradients<Scalar> gradients) {
  P3D_SHARED(uint32_t, halves, 2);
  const ChunkPlace place(in.shape, kGroup);
  const WalkerPlace walker(place, kGroup);
  BackTile tile(dynamic_shared<unsigned char>(), kGroup);
  load_back_tile(in, grad, place, tile);
  const uint64_t starts = find_starts(in.shape.layout, place.first_step, halves);
  const bool there = walker.channel < in.shape.channels;
  const float skip = in.skip != nullptr && there ? __ldg(in.skip + walker.channel) : 0.0f;
  Adjoint adjoint = {};
  load_decay(in, walker, adjoint.decay);
  {
    float state[kThreadStates];
    load_chunk_states(checkpoints, in.shape, place.chunk, walker, state);
    keep_starts(tile, walker, starts, adjoint.decay, state);
  }
  load_chunk_states(memory.carries, in.shape, place.chunk, walker, adjoint.carry);
#pragma unroll 1
  for (int first = kSteps - kBackSteps; first >= 0; first -= kBackSteps) {
    steps_back<kGroup>(in.shape, place, tile, walker, checkpoints, first, starts, skip, adjoint);
    __syncthreads();
    write_bc_sums(in.shape, place, tile, first, memory.bc_sums);
    __syncthreads();
  }
  store_chunk_states(adjoint.decay_sum, in.shape, place.chunk, walker, memory.decay_sums);
  const int64_t slot = place.chunk * in.shape.channels + walker.channel;
  if (there && walker.part == 0) memory.skip_sums[slot] = adjoint.skip_sum;
  write_row_gradients(in, grad, place, tile, gradients);
  __syncthreads();
  if (there && walker.part == 0) {
    float sum = 0;
    for (int t = 0; t < place.length; ++t) sum += tile.delta[t * tile.channels + walker.column];
    memory.bias_sums[slot] = sum;
  }
}

// The gradients of B and C: the blocks of channels in order, by rows.
template <typename Scalar>
__global__ void __launch_bounds__(256)
    write_bc(ScanShape shape, const float* bc_sums, int64_t blocks, int64_t padded, Scalar* b_grad,
             Scalar* c_grad) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t step = index / (2 * padded), number = index % (2 * padded);
  const int64_t state = number % padded;
  if (step >= shape.layout.length || state >= shape.states) return;
  float sum = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    sum += bc_sums[(block * shape.layout.length + step) * 2 * padded + number];
  }
  const int64_t row = row_of_step(shape.layout, step, "selective_scan: order");
  store(sum, (number < padded ? b_grad : c_grad)[row * shape.states + state]);
}

template <typename Scalar, int kGroup>
Status launch_back(const ScanInputs<Scalar>& in, const Rows<const Scalar>& grad,
                   const float* checkpoints, const BackwardMemory& memory,
                   const ScanGradients<Scalar>& gradients, Grid grid, Stream stream) {
  return launch(go_back<Scalar, kGroup>, grid, kScanThreads, back_tile_bytes(kGroup), stream, in,
                grad, checkpoints, memory, gradients);
}

// Sums over chunks, into the gradients of the parameters.
template <typename Scalar>
Status sum_parameters(const ScanShape& shape, int64_t chunks, const BackwardMemory& memory,
                      const ScanGradients<Scalar>& gradients, Stream stream) {
  const int64_t channels = shape.channels, states = shape.states;
  Status status = launch_column_sums<float>(memory.decay_sums, chunks, states * channels, channels,
                                            states, gradients.A, stream);
  if (status == nullptr && gradients.skip != nullptr) {
    status = launch_column_sums<float>(memory.skip_sums, chunks, channels, channels, 1,
                                       gradients.skip, stream);
  }
  if (status == nullptr && gradients.delta_bias != nullptr) {
    status = launch_column_sums<float>(memory.bias_sums, chunks, channels, channels, 1,
                                       gradients.delta_bias, stream);
  }
  return status;
}

}  // namespace

int64_t scan_backward_workspace_bytes(const ScanShape& shape) {
  return BackwardMemory(shape, threads_per_channel(shape.states), nullptr).bytes;
}

template <typename Scalar>
Status selective_scan_backward(const ScanInputs<Scalar>& in, const Rows<const Scalar>& grad,
                               const float* checkpoints, const ScanGradients<Scalar>& gradients,
                               void* workspace, Stream stream) {
  const ScanShape& shape = in.shape;
  const int group = threads_per_channel(shape.states);
  const BackwardMemory memory(shape, group, workspace);
  const int64_t chunks = (shape.layout.length + kScanChunk - 1) / kScanChunk;
  const int64_t channels = kScanThreads / group, padded = group * kThreadStates;
  const int64_t blocks = (shape.channels + channels - 1) / channels;
  const Grid grid(chunks, blocks);
  Status status = launch(find_adjoint_ends<Scalar>, grid, kScanThreads, chunk_tile_bytes(group),
                         stream, in, grad, group, memory);
  if (status != nullptr) return status;
  status =
      carry_over_chunks(shape, in.A, memory.delta_sums, memory.cuts, true, memory.carries, stream);
  if (status != nullptr) return status;
  switch (group) {
    case 1:
      status = launch_back<Scalar, 1>(in, grad, checkpoints, memory, gradients, grid, stream);
      break;
    case 2:
      status = launch_back<Scalar, 2>(in, grad, checkpoints, memory, gradients, grid, stream);
      break;
    case 4:
      status = launch_back<Scalar, 4>(in, grad, checkpoints, memory, gradients, grid, stream);
      break;
    case 8:
      status = launch_back<Scalar, 8>(in, grad, checkpoints, memory, gradients, grid, stream);
      break;
    case 16:
      status = launch_back<Scalar, 16>(in, grad, checkpoints, memory, gradients, grid, stream);
      break;
    default:
      status = launch_back<Scalar, 32>(in, grad, checkpoints, memory, gradients, grid, stream);
  }
  if (status != nullptr) return status;
  const int64_t numbers = shape.layout.length * 2 * padded;
  status = launch(write_bc<Scalar>, Grid((numbers + 255) / 256), 256, 0, stream, shape,
                  memory.bc_sums, blocks, padded, gradients.B, gradients.C);
  if (status != nullptr) return status;
  return sum_parameters(shape, chunks, memory, gradients, stream);
}

#define P3D_INSTANTIATE(Scalar)                                                                 \
  template Status selective_scan_backward(const ScanInputs<Scalar>&, const Rows<const Scalar>&, \
                                          const float*, const ScanGradients<Scalar>&, void*,    \
                                          Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
