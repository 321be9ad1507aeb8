// 2^x as the hardware has it: 2 units in the last place, 0 for results below the normal numbers.
#pragma once

#include <cmath>

#include "common/launch.cuh"

namespace perception3d {

#if defined(P3D_SIMT)

inline float exp2_approximate(float x) { return std::exp2(x); }

#else

__device__ __forceinline__ float exp2_approximate(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

#endif

}  // namespace perception3d
