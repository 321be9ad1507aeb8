// Vectors of several numbers, computed in float or double, loaded from and stored to any storage
// type.  Results come back through references: a vector as a return value would have another
// calling convention on each kind of CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/parallel.h"
#include "common/scalar.h"

namespace perception3d {

template <typename Number, int kLanes>
struct VectorOf {
  typedef Number Type __attribute__((vector_size(kLanes * sizeof(Number))));
};
template <typename Number, int kLanes>
using Numbers = typename VectorOf<Number, kLanes>::Type;

// A vector of 64 bytes.  One that lies in memory needs alignas(64): the alignment of the type
// itself differs between the kinds of CPU that a function is compiled for.
template <typename Number>
constexpr int kLanesOf = 64 / static_cast<int>(sizeof(Number));
template <typename Number>
using Vector = Numbers<Number, kLanesOf<Number>>;

template <int kLanes>
P3D_INLINE void load_vector(const float* source, Numbers<float, kLanes>& lanes) {
  std::memcpy(&lanes, source, sizeof(lanes));
}

template <int kLanes>
P3D_INLINE void load_vector(const double* source, Numbers<double, kLanes>& lanes) {
  std::memcpy(&lanes, source, sizeof(lanes));
}

template <int kLanes>
P3D_INLINE void load_vector(const BFloat16* source, Numbers<float, kLanes>& lanes) {
  Numbers<uint16_t, kLanes> bits;
  std::memcpy(&bits, source, sizeof(bits));
  const auto wide = __builtin_convertvector(bits, Numbers<uint32_t, kLanes>) << 16;
  std::memcpy(&lanes, &wide, sizeof(lanes));
}

// As load() of common/scalar.h, on many numbers.
template <int kLanes>
P3D_INLINE void load_vector(const Float16* source, Numbers<float, kLanes>& lanes) {
  typedef Numbers<uint32_t, kLanes> Bits;
  Numbers<uint16_t, kLanes> stored;
  std::memcpy(&stored, source, sizeof(stored));
  const Bits bits = __builtin_convertvector(stored, Bits);
  const Bits magnitude = (bits & 0x7fffu) << 13;
  std::memcpy(&lanes, &magnitude, sizeof(lanes));
  lanes *= 0x1p112f;
  Bits scaled;
  std::memcpy(&scaled, &lanes, sizeof(lanes));
  const Bits special = reinterpret_cast<Bits>(magnitude >= 0x0f800000u) & 0x7f800000u;
  scaled |= special | (bits & 0x8000u) << 16;
  std::memcpy(&lanes, &scaled, sizeof(lanes));
}

template <int kLanes>
P3D_INLINE void store_vector(const Numbers<float, kLanes>& lanes, float* target) {
  std::memcpy(target, &lanes, sizeof(lanes));
}

template <int kLanes>
P3D_INLINE void store_vector(const Numbers<double, kLanes>& lanes, double* target) {
  std::memcpy(target, &lanes, sizeof(lanes));
}

// As store() of common/scalar.h, on many numbers.
template <int kLanes>
P3D_INLINE void store_vector(const Numbers<float, kLanes>& lanes, BFloat16* target) {
  typedef Numbers<uint32_t, kLanes> Bits;
  Bits bits;
  std::memcpy(&bits, &lanes, sizeof(bits));
  const Bits rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const Bits kept = (bits & 0x7fffffffu) > 0x7f800000u ? Bits{} + 0x7fc0u : rounded;
  const auto stored = __builtin_convertvector(kept, Numbers<uint16_t, kLanes>);
  std::memcpy(target, &stored, sizeof(stored));
}

template <int kLanes>
P3D_INLINE void store_vector(const Numbers<float, kLanes>& lanes, Float16* target) {
  typedef Numbers<uint32_t, kLanes> Bits;
  Bits bits;
  std::memcpy(&bits, &lanes, sizeof(bits));
  const Bits magnitude = bits & 0x7fffffffu;
  Numbers<float, kLanes> size;
  std::memcpy(&size, &magnitude, sizeof(size));
  size += 0.5f;
  Bits half;
  std::memcpy(&half, &size, sizeof(half));
  half -= 0x3f000000u;  // subnormal numbers: the adder has rounded them
  const Bits normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  half = magnitude < 0x38800000u ? half : normal;
  half = magnitude >= 0x477ff000u ? Bits{} + 0x7c00u : half;
  half = magnitude > 0x7f800000u ? Bits{} + 0x7e00u : half;
  half |= bits >> 16 & 0x8000u;
  const auto stored = __builtin_convertvector(half, Numbers<uint16_t, kLanes>);
  std::memcpy(target, &stored, sizeof(stored));
}

}  // namespace perception3d
