// Storage types of kernels: float, double and the two 16-bit types, which are stored only; all
// arithmetic on them is done in float.  Free of torch and CUDA headers, equal on host and device.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define P3D_HOST_DEVICE __host__ __device__
#else
#define P3D_HOST_DEVICE
#endif

namespace perception3d {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// Expands define(Scalar) for every storage type.
#define P3D_FOR_EACH_STORAGE(define) define(float) define(double) define(BFloat16) define(Float16)

// The type that sums of a storage type are kept in.
template <typename Scalar>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <typename Scalar>
using Compute = typename ComputeOf<Scalar>::Type;

P3D_HOST_DEVICE inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

P3D_HOST_DEVICE inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

P3D_HOST_DEVICE inline float load(const float& value) { return value; }
P3D_HOST_DEVICE inline double load(const double& value) { return value; }
P3D_HOST_DEVICE inline float load(const BFloat16& value) {
  return float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}
// The exponent is moved by multiplying with 2^112, which normalises subnormal values too.
P3D_HOST_DEVICE inline float load(const Float16& value) {
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const float scaled = float_of_bits(magnitude) * float_of_bits(0x77800000u);
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity or NaN
  return float_of_bits(bits_of_float(scaled) | special | sign);
}

P3D_HOST_DEVICE inline void store(float value, float& target) { target = value; }
P3D_HOST_DEVICE inline void store(double value, double& target) { target = value; }
// Round to nearest, ties to even; NaN stays NaN.
P3D_HOST_DEVICE inline void store(float value, BFloat16& target) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  target.bits = static_cast<uint16_t>(nan ? 0x7fc0u : rounded >> 16);
}
P3D_HOST_DEVICE inline void store(float value, Float16& target) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 lets the adder round
    half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  target.bits = static_cast<uint16_t>(half | sign);
}

}  // namespace perception3d
