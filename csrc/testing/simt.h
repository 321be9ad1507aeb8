// CUDA C++ for g++: what kernel sources and their launchers see when P3D_SIMT is defined.
//
// The threads of a block are fibers on one thread of the machine; blocks run one after another.  A
// kernel that waits for what another block of the launch does later would hang: here it is
// reported.  See docs/cuda.md.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "common/status.h"
#include "testing/simt_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Where the running thread is; the scheduler writes them.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace perception3d {
namespace simt {

// A line of a kernel, for messages.
struct Site {
  const char* file;
  int line;
};

// What a lane brings to a warp collective and takes from it.
constexpr size_t kPayloadBytes = 64;
struct alignas(16) Payload {
  unsigned char bytes[kPayloadBytes];
};

// Runs once all lanes of `mask` have come: from all that they brought to what each of them takes.
// Returns null or what is wrong.
using Combine = const char* (*)(uint32_t mask, const Payload* brought, Payload* taken);

// Waits for the other lanes of `mask`.
void warp_collective(const char* name, Site site, uint32_t mask, Combine combine, Payload& payload);
void warp_barrier(Site site, uint32_t mask);
// Waits for the other threads of the block; returns how many of them brought true.
int block_barrier(Site site, bool vote);
// Marks an access as atomic: what other threads do atomically to the same bytes is no race.
void check_atomic(const void* address, size_t bytes);
// Copies of 16 bytes that arrive when their group is waited for; see common/async_copy.cuh.
void start_copy(void* target, const void* source);
void commit_copies();
void wait_for_copies(int later);
// Ends the launch with a report about the running thread.
[[noreturn]] void fail(const char* what);

// For host twins of device-wide functions: null, or a text if these bytes do not lie in one buffer
// of the call, or if nobody has written what is to be read.
Status host_reads(const void* begin, size_t bytes);
// The same, and marks them as written.
Status host_writes(void* begin, size_t bytes);

void* shared_variable(const void* key, const char* name, size_t bytes, size_t granule);
void* dynamic_shared_memory();

Status run(const char* name, Grid grid, dim3 block, size_t shared_bytes, void (*body)(const void*),
           const void* parameters, size_t parameter_bytes);

template <typename... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> parameters;
  static void run(const void* call) {
    const Call* self = static_cast<const Call*>(call);
    std::apply(self->kernel, self->parameters);
  }
};

template <typename... Parameters, typename... Arguments>
Status launch_named(const char* name, void (*kernel)(Parameters...), Grid grid, dim3 block,
                    size_t shared_bytes, Stream, Arguments... arguments) {
  const Call<Parameters...> call{kernel, {static_cast<Parameters>(arguments)...}};
  return run(name, grid, block, shared_bytes, Call<Parameters...>::run, &call, sizeof(call));
}

}  // namespace simt

template <typename T>
inline T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared_memory());
}

void check_index(int64_t index, int64_t count, const char* what);
Status fill_bytes(void* target, int byte, size_t count, Stream stream);
Status copy_to_host(void* target, const void* source, size_t count, Stream stream);

}  // namespace perception3d

// A macro, so that reports can name the kernel.
#define launch(...) simt::launch_named(#__VA_ARGS__, __VA_ARGS__)

#define P3D_SHARED(Type, name, count)                                                 \
  static const char p3d_key_of_##name = 0;                                            \
  Type* const name = static_cast<Type*>(::perception3d::simt::shared_variable(        \
      &p3d_key_of_##name, "shared " #name, sizeof(Type) * static_cast<size_t>(count), \
      alignof(Type)))

#include "testing/simt_intrinsics.h"
