// OpenMP loops over blocks.  Kernels get their thread count as an argument:
// torch and this library may be linked to different OpenMP runtimes, so only
// torch knows what the user chose.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

// Compiles a hot loop for newer x86-64 machines too; the loader picks.
// Contraction into fused multiply-add is off for all, so every clone gives the
// same numbers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define P3D_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define P3D_CLONES
#endif

// Defines a function several times where not only its instructions but also its shape, such as the
// size of a tile held in registers, depends on the machine: `define(attributes, bytes)` has to
// expand to the definition for machines with vector registers of that many bytes.  The loader
// picks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define P3D_FOR_EACH_MACHINE(define)                        \
  define(__attribute__((target("arch=x86-64-v4"))), 64)     \
      define(__attribute__((target("arch=x86-64-v3"))), 32) \
          define(__attribute__((target("default"))), 16)
#else
#define P3D_FOR_EACH_MACHINE(define) define(, 16)
#endif

// For the bodies that such functions share: what is not inlined is not compiled for the newer
// machine.
#define P3D_INLINE inline __attribute__((always_inline))

namespace perception3d {

// Number of threads worth starting for `work` items when each should get at
// least `grain`.
inline int worker_count(int threads, int64_t work, int64_t grain) {
  return static_cast<int>(std::clamp<int64_t>(work / std::max<int64_t>(grain, 1), 1, threads));
}

// First item of block `index` when `count` items are cut into `blocks` nearly
// equal blocks.
inline int64_t block_begin(int64_t count, int64_t blocks, int64_t index) {
  return count / blocks * index + std::min(index, count % blocks);
}

// Calls body(worker, begin, end) once per worker, each with its share of
// 0..count-1, in order.
template <typename Body>
void for_each_block(int workers, int64_t count, const Body &body) {
  if (workers <= 1) {
    body(0, int64_t{0}, count);
    return;
  }
#pragma omp parallel for num_threads(workers) schedule(static, 1)
  for (int worker = 0; worker < workers; ++worker) {
    body(worker, block_begin(count, workers, worker), block_begin(count, workers, worker + 1));
  }
}

// Calls body(item) for 0..count-1; idle threads take the next `grain` items.
template <typename Body>
void for_each_dynamic(int workers, int64_t count, int64_t grain, const Body &body) {
  if (workers <= 1) {
    for (int64_t item = 0; item < count; ++item) body(item);
    return;
  }
#pragma omp parallel for num_threads(workers) schedule(dynamic, grain)
  for (int64_t item = 0; item < count; ++item) body(item);
}

// The same with something that each worker makes once, such as scratch memory:
// calls body(made, item).
template <typename Make, typename Body>
void for_each_dynamic_with(int workers, int64_t count, const Make &make, const Body &body) {
  if (workers <= 1) {
    auto made = make();
    for (int64_t item = 0; item < count; ++item) body(made, item);
    return;
  }
#pragma omp parallel num_threads(workers)
  {
    auto made = make();
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < count; ++item) body(made, item);
  }
}

}  // namespace perception3d
