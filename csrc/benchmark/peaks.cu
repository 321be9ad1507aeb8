// Kernels that do nothing but arithmetic, to learn what a GPU can do at best.  Compiled by
// perception3d/benchmark/native_peaks.py for the machine at hand; no part of the operators.
#include <cuda_runtime.h>

#include <cstdint>

namespace {

constexpr int kBlock = 256;
constexpr int kBlocksPerProcessor = 8;  // 2,048 threads: as many as fit
constexpr int kChains = 8;

__global__ void fma_kernel(int rounds, float* sink) {
  float chain[kChains];
#pragma unroll
  for (int c = 0; c < kChains; ++c) chain[c] = 0.1f * static_cast<float>(c + threadIdx.x);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) chain[c] = __fmaf_rn(chain[c], 0.999f, 0.001f);
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChains; ++c) sum += chain[c];
  if (sum == -1.0f) *sink = sum;  // never, but the compiler does not know
}

__global__ void exp_kernel(int rounds, float* sink) {
  float chain[kChains];
#pragma unroll
  for (int c = 0; c < kChains; ++c) chain[c] = -0.01f * static_cast<float>(c + threadIdx.x);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(chain[c]));
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChains; ++c) sum += chain[c];
  if (sum == -1.0f) *sink = sum;
}

int processor_count() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace

extern "C" {

// Operations of one round of either kernel: multiply-adds count two, exponentials one.
int64_t p3d_fma_round() {
  return int64_t{2} * kChains * kBlock * kBlocksPerProcessor * processor_count();
}
int64_t p3d_exp_round() {
  return int64_t{1} * kChains * kBlock * kBlocksPerProcessor * processor_count();
}

// Start `rounds` rounds on the current device and wait for them; `sink` is one float there.
// Return a CUDA error code.
int p3d_fma_loop(int64_t rounds, float* sink) {
  fma_kernel<<<kBlocksPerProcessor * processor_count(), kBlock>>>(static_cast<int>(rounds), sink);
  return static_cast<int>(cudaDeviceSynchronize());
}

int p3d_exp_loop(int64_t rounds, float* sink) {
  exp_kernel<<<kBlocksPerProcessor * processor_count(), kBlock>>>(static_cast<int>(rounds), sink);
  return static_cast<int>(cudaDeviceSynchronize());
}

}  // extern "C"
