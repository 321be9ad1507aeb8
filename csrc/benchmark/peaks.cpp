// Loops that do nothing but arithmetic, to learn what a processor can do at best.  Compiled by
// perception3d/benchmark/native_peaks.py for the machine at hand; no part of the operators.
#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;
constexpr int kChains = 12;   // enough to hide the latency of two FMA units, few enough registers
constexpr int kVectors = 64;  // numbers of the exponentials, 4 KB at most

typedef float Floats __attribute__((vector_size(kBytes)));
typedef int32_t Integers __attribute__((vector_size(kBytes)));

Floats repeat(float value) { return value - Floats{}; }

// 2^x for -126 < x < 126 to about 1e-7, as the fused kernels do it: nearest integer into the
// exponent bits, a polynomial (Taylor at 0) for the rest.
inline Floats exp2_of(Floats x) {
  const Floats magic = repeat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x + magic;
  const Floats f = x - (shifted - magic);
  Floats p = repeat(1.5403530e-4f);
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  Integers bits, exponent;
  std::memcpy(&bits, &p, kBytes);
  std::memcpy(&exponent, &shifted, kBytes);
  bits += exponent << 23;
  std::memcpy(&p, &bits, kBytes);
  return p;
}

float sum_of(Floats values) {
  float sum = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) sum += values[lane];
  return sum;
}

}  // namespace

extern "C" {

// Floating-point operations of one round of p3d_fma_loop.
int64_t p3d_fma_round() { return int64_t{2} * kLanes * kChains; }

// Each thread runs `rounds` rounds of independent multiply-adds; returns what they made.
float p3d_fma_loop(int64_t rounds, int threads) {
  float total = 0.0f;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    Floats chain[kChains];
    for (int c = 0; c < kChains; ++c) chain[c] = repeat(0.1f * static_cast<float>(c));
    const Floats factor = repeat(0.999f), term = repeat(0.001f);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
      for (int c = 0; c < kChains; ++c) chain[c] = chain[c] * factor + term;
    }
    for (int c = 0; c < kChains; ++c) total += sum_of(chain[c]);
  }
  return total;
}

// Exponentials of one round of p3d_exp_loop.
int64_t p3d_exp_round() { return int64_t{kVectors} * kLanes; }

// Each thread takes `rounds` rounds of exponentials of numbers in its nearest cache; returns
// their sum.
float p3d_exp_loop(int64_t rounds, int threads) {
  float total = 0.0f;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    alignas(kBytes) float numbers[kVectors * kLanes];
    for (int i = 0; i < kVectors * kLanes; ++i) numbers[i] = -0.01f * static_cast<float>(i);
    Floats sum[4] = {};
    for (int64_t round = 0; round < rounds; ++round) {
      asm volatile("" : : "r"(numbers) : "memory");  // the numbers may have changed
      for (int v = 0; v < kVectors; v += 4) {
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
          Floats x;
          std::memcpy(&x, numbers + (v + c) * kLanes, kBytes);
          sum[c] += exp2_of(x);
        }
      }
    }
    for (const Floats& part : sum) total += sum_of(part);
  }
  return total;
}

}  // extern "C"
