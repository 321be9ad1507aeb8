// The one way to start a CUDA kernel, and the names that kernels need beyond plain CUDA C++.  Under
// nvcc they are what they say; with P3D_SIMT defined, g++ compiles the same kernels against the
// interpreter in csrc/testing.  docs/cuda.md shows how to write and test a kernel.
//
//   launch(kernel, grid, block, shared_bytes, stream, args...)   starts it, returns a Status
//   P3D_SHARED(float, tile, 256);       a shared array of the block, 16-byte aligned
//   dynamic_shared<float>()             the shared_bytes of the launch, 16-byte aligned
//   check_index(i, count, "op: rows")   stops the kernel with a message; P3D_DEBUG builds only
//   fill_bytes(target, byte, count, stream), copy_to_host(target, source, count, stream)
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/status.h"

namespace perception3d {

// Blocks of a launch; 64 bits, so that what no launch can have is refused and not cut off.
struct Grid {
  int64_t x, y, z;
  Grid(int64_t x_, int64_t y_ = 1, int64_t z_ = 1) : x(x_), y(y_), z(z_) {}

  bool is_empty() const { return x <= 0 || y <= 0 || z <= 0; }
  Status refusal() const {
    return x > INT32_MAX || y > 65535 || z > 65535
               ? "a grid may have 2^31 - 1 x 65535 x 65535 blocks"
               : nullptr;
  }
};

}  // namespace perception3d

#if defined(P3D_SIMT)
#include "testing/simt.h"
#else
#include <cuda_runtime.h>

#include <cstdio>
#include <tuple>

#define P3D_SHARED(Type, name, count) __shared__ __align__(16) Type name[count]

namespace perception3d {

inline Status status_of(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// A grid without blocks is nothing to do.  Without a static limit: shared_bytes may go up to what
// the device has.
template <typename... Parameters, typename... Arguments>
Status launch(void (*kernel)(Parameters...), Grid grid, dim3 block, size_t shared_bytes,
              Stream stream, Arguments... arguments) {
  if (grid.is_empty() || grid.refusal() != nullptr) return grid.refusal();
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t refused = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(shared_bytes));
    if (refused != cudaSuccess) return status_of(refused);
  }
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  return std::apply(
      [&](Parameters&... value) {
        void* addresses[] = {static_cast<void*>(&value)...};
        return status_of(cudaLaunchKernel(kernel, dim3(grid.x, grid.y, grid.z), block, addresses,
                                          shared_bytes, stream));
      },
      values);
}

template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char p3d_dynamic_shared[];
  return reinterpret_cast<T*>(p3d_dynamic_shared);
}

__device__ __forceinline__ void check_index(int64_t index, int64_t count, const char* what) {
#if defined(P3D_DEBUG)
  if (index >= 0 && index < count) return;
  printf("%s must be in 0..%lld, got %lld (block %d, %d, %d, thread %d, %d, %d)\n", what,
         static_cast<long long>(count - 1), static_cast<long long>(index), blockIdx.x, blockIdx.y,
         blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  __trap();
#endif
}

inline Status fill_bytes(void* target, int byte, size_t count, Stream stream) {
  return status_of(cudaMemsetAsync(target, byte, count, stream));
}

// Waits for the stream: the one way to look at a number of the device, sparingly.
inline Status copy_to_host(void* target, const void* source, size_t count, Stream stream) {
  const Status status =
      status_of(cudaMemcpyAsync(target, source, count, cudaMemcpyDeviceToHost, stream));
  return status != nullptr ? status : status_of(cudaStreamSynchronize(stream));
}

}  // namespace perception3d
#endif
