// Copies from global to shared memory that go on while the thread does something else.
//
//   copy_async(target, source);      16 bytes, both aligned to 16
//   commit_copies();                 what was started since the last commit is one group
//   wait_for_copies<kLater>();       until at most the kLater latest groups are under way; then a
//                                    barrier, before other threads may read what was copied
#pragma once

#include <cstdint>

#include "common/launch.cuh"

namespace perception3d {

#if defined(P3D_SIMT)

// On the interpreter the bytes arrive when they are waited for, and not before.
inline void copy_async(void* target, const void* source) { simt::start_copy(target, source); }
inline void commit_copies() { simt::commit_copies(); }
template <int kLater>
inline void wait_for_copies() {
  simt::wait_for_copies(kLater);
}

#else

__device__ __forceinline__ void copy_async(void* target, const void* source) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address),
               "l"(__cvta_generic_to_global(source))
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }

template <int kLater>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLater) : "memory");
}

#endif

}  // namespace perception3d
