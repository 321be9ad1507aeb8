// Several numbers side by side, loaded and stored as one piece of up to 16 bytes.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "common/scalar.h"

namespace perception3d {

template <typename Scalar, int kCount>
struct alignas(sizeof(Scalar) * kCount) Packed {
  Scalar number[kCount];
};

template <int kCount, typename Scalar>
__device__ __forceinline__ Packed<Scalar, kCount> load_packed(const Scalar* source) {
  return *reinterpret_cast<const Packed<Scalar, kCount>*>(source);
}

template <typename Scalar, int kCount>
__device__ __forceinline__ void store_packed(const Packed<Scalar, kCount>& packed, Scalar* target) {
  *reinterpret_cast<Packed<Scalar, kCount>*>(target) = packed;
}

// Numbers of this type that fill 16 bytes.
template <typename Scalar>
constexpr int kPackedWidth = 16 / static_cast<int>(sizeof(Scalar));

// Whether rows of `columns` numbers from here on can be accessed in pieces of 16 bytes.
template <typename Scalar>
bool can_pack(const Scalar* rows, int64_t columns) {
  return columns % kPackedWidth<Scalar> == 0 && reinterpret_cast<uintptr_t>(rows) % 16 == 0;
}

}  // namespace perception3d
