// CUDA's built-in functions on the interpreter: barriers, warp collectives, atomics, arithmetic.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define P3D_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace perception3d {
namespace simt {

inline int thread_number() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

template <typename T>
inline Payload pack(const T& value) {
  static_assert(sizeof(T) <= kPayloadBytes, "too much for one warp collective");
  Payload payload;
  std::memcpy(payload.bytes, &value, sizeof(T));
  return payload;
}

template <typename T>
inline T unpack(const Payload& payload) {
  T value;
  std::memcpy(&value, payload.bytes, sizeof(T));
  return value;
}

// Calls body(lane) for the lanes of a mask.
template <typename Body>
inline void for_each_lane(uint32_t mask, const Body& body) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0) body(lane);
  }
}

struct Shuffled {
  uint64_t bits;
  int source;
};

inline const char* combine_shuffle(uint32_t mask, const Payload* brought, Payload* taken) {
  const char* wrong = nullptr;
  for_each_lane(mask, [&](int lane) {
    const int source = unpack<Shuffled>(brought[lane]).source;
    if ((mask >> source & 1u) == 0) {
      wrong = "a lane reads from a lane that is not in the mask";
    } else {
      taken[lane] = brought[source];
    }
  });
  return wrong;
}

template <typename T>
inline T shuffle(const char* name, Site site, uint32_t mask, T value, int source) {
  static_assert(sizeof(T) <= 8 && std::is_arithmetic<T>::value, "shuffles move numbers");
  Shuffled mine{0, source};
  std::memcpy(&mine.bits, &value, sizeof(T));
  Payload payload = pack(mine);
  warp_collective(name, site, mask, combine_shuffle, payload);
  const Shuffled got = unpack<Shuffled>(payload);
  std::memcpy(&value, &got.bits, sizeof(T));
  return value;
}

// Reduces what the lanes brought with Operation and gives the result to all.
template <typename T, typename Operation>
inline const char* combine_reduction(uint32_t mask, const Payload* brought, Payload* taken) {
  bool first = true;
  T total{};
  for_each_lane(mask, [&](int lane) {
    const T value = unpack<T>(brought[lane]);
    total = first ? value : Operation{}(total, value);
    first = false;
  });
  for_each_lane(mask, [&](int lane) { taken[lane] = pack(total); });
  return nullptr;
}

template <typename Operation, typename T>
inline T reduce_warp(const char* name, Site site, uint32_t mask, T value) {
  Payload payload = pack(value);
  warp_collective(name, site, mask, combine_reduction<T, Operation>, payload);
  return unpack<T>(payload);
}

inline const char* combine_ballot(uint32_t mask, const Payload* brought, Payload* taken) {
  uint32_t votes = 0;
  for_each_lane(mask, [&](int lane) {
    votes |= static_cast<uint32_t>(unpack<int>(brought[lane]) != 0) << lane;
  });
  for_each_lane(mask, [&](int lane) { taken[lane] = pack(votes); });
  return nullptr;
}

inline uint32_t ballot(const char* name, Site site, uint32_t mask, int vote) {
  Payload payload = pack(vote);
  warp_collective(name, site, mask, combine_ballot, payload);
  return unpack<uint32_t>(payload);
}

template <typename T>
inline const char* combine_match(uint32_t mask, const Payload* brought, Payload* taken) {
  for_each_lane(mask, [&](int lane) {
    uint32_t equal = 0;
    for_each_lane(mask, [&](int other) {
      equal |= static_cast<uint32_t>(unpack<T>(brought[lane]) == unpack<T>(brought[other]))
               << other;
    });
    taken[lane] = pack(equal);
  });
  return nullptr;
}

struct Smaller {
  template <typename T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Larger {
  template <typename T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Sum {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

// The types that CUDA's atomics take; note that uint64_t is not one of them.
template <typename T>
constexpr bool kIsAtomicInteger = std::is_same<T, int>::value || std::is_same<T, unsigned>::value ||
                                  std::is_same<T, unsigned long long>::value;
template <typename T>
constexpr bool kIsAtomic =
    kIsAtomicInteger<T> || std::is_same<T, float>::value || std::is_same<T, double>::value;

template <typename T>
struct Same {
  using Type = T;
};

template <typename T, typename Update>
__attribute__((no_sanitize_thread)) inline T update_atomically(T* target, const Update& update) {
  check_atomic(target, sizeof(T));
  const T before = *target;
  *target = update(before);
  return before;
}

}  // namespace simt
}  // namespace perception3d

// Barriers.
inline void __syncthreads(P3D_SITE) { perception3d::simt::block_barrier({file, line}, false); }
inline int __syncthreads_count(int vote, P3D_SITE) {
  return perception3d::simt::block_barrier({file, line}, vote != 0);
}
inline int __syncthreads_or(int vote, P3D_SITE) {
  return perception3d::simt::block_barrier({file, line}, vote != 0) != 0;
}
inline int __syncthreads_and(int vote, P3D_SITE) {
  return perception3d::simt::block_barrier({file, line}, vote == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, P3D_SITE) {
  perception3d::simt::warp_barrier({file, line}, mask);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Shuffles and votes.
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, P3D_SITE) {
  const int lane = perception3d::simt::thread_number() & 31;
  const int group = lane & ~(width - 1);
  return perception3d::simt::shuffle("__shfl_sync", {file, line}, mask, value,
                                     group | (source & (width - 1)));
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = warpSize, P3D_SITE) {
  const int lane = perception3d::simt::thread_number() & 31;
  const int source = lane ^ flip;
  // Lanes of later groups cannot be read.
  const bool inside = source < (lane & ~(width - 1)) + width && source < warpSize;
  return perception3d::simt::shuffle("__shfl_xor_sync", {file, line}, mask, value,
                                     inside ? source : lane);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, P3D_SITE) {
  const int lane = perception3d::simt::thread_number() & 31;
  const int source = lane - static_cast<int>(delta);
  return perception3d::simt::shuffle("__shfl_up_sync", {file, line}, mask, value,
                                     source < (lane & ~(width - 1)) ? lane : source);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, P3D_SITE) {
  const int lane = perception3d::simt::thread_number() & 31;
  const int source = lane + static_cast<int>(delta);
  return perception3d::simt::shuffle("__shfl_down_sync", {file, line}, mask, value,
                                     source >= (lane & ~(width - 1)) + width ? lane : source);
}
inline unsigned __ballot_sync(unsigned mask, int vote, P3D_SITE) {
  return perception3d::simt::ballot("__ballot_sync", {file, line}, mask, vote);
}
inline int __any_sync(unsigned mask, int vote, P3D_SITE) {
  return perception3d::simt::ballot("__any_sync", {file, line}, mask, vote) != 0;
}
inline int __all_sync(unsigned mask, int vote, P3D_SITE) {
  return perception3d::simt::ballot("__all_sync", {file, line}, mask, vote == 0) == 0;
}
template <typename T>
inline unsigned __match_any_sync(unsigned mask, T value, P3D_SITE) {
  perception3d::simt::Payload payload = perception3d::simt::pack(value);
  perception3d::simt::warp_collective("__match_any_sync", {file, line}, mask,
                                      perception3d::simt::combine_match<T>, payload);
  return perception3d::simt::unpack<unsigned>(payload);
}
template <typename T>
inline T __reduce_add_sync(unsigned mask, T value, P3D_SITE) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "32-bit integers only");
  return perception3d::simt::reduce_warp<perception3d::simt::Sum>("__reduce_add_sync", {file, line},
                                                                  mask, value);
}
template <typename T>
inline T __reduce_min_sync(unsigned mask, T value, P3D_SITE) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "32-bit integers only");
  return perception3d::simt::reduce_warp<perception3d::simt::Smaller>("__reduce_min_sync",
                                                                      {file, line}, mask, value);
}
template <typename T>
inline T __reduce_max_sync(unsigned mask, T value, P3D_SITE) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "32-bit integers only");
  return perception3d::simt::reduce_warp<perception3d::simt::Larger>("__reduce_max_sync",
                                                                     {file, line}, mask, value);
}

// Atomics.
#define P3D_SIMT_ATOMIC(name, allowed, expression)                                               \
  template <typename T>                                                                          \
  inline T name(T* target, typename perception3d::simt::Same<T>::Type value) {                   \
    static_assert(perception3d::simt::allowed<T>, #name                                          \
                  " takes int, unsigned, unsigned long "                                         \
                  "long, and some take float and double");                                       \
    return perception3d::simt::update_atomically(target,                                         \
                                                 [value](T before) -> T { return expression; }); \
  }
P3D_SIMT_ATOMIC(atomicAdd, kIsAtomic, before + value)
P3D_SIMT_ATOMIC(atomicSub, kIsAtomicInteger, before - value)
P3D_SIMT_ATOMIC(atomicMin, kIsAtomicInteger, before < value ? before : value)
P3D_SIMT_ATOMIC(atomicMax, kIsAtomicInteger, before < value ? value : before)
P3D_SIMT_ATOMIC(atomicAnd, kIsAtomicInteger, before& value)
P3D_SIMT_ATOMIC(atomicOr, kIsAtomicInteger, before | value)
P3D_SIMT_ATOMIC(atomicXor, kIsAtomicInteger, before ^ value)
P3D_SIMT_ATOMIC(atomicExch, kIsAtomic, (static_cast<void>(before), value))
#undef P3D_SIMT_ATOMIC
template <typename T>
inline T atomicCAS(T* target, typename perception3d::simt::Same<T>::Type expected,
                   typename perception3d::simt::Same<T>::Type value) {
  static_assert(perception3d::simt::kIsAtomicInteger<T>,
                "atomicCAS takes int, unsigned, unsigned long long");
  return perception3d::simt::update_atomically(
      target, [=](T before) -> T { return before == expected ? value : before; });
}

// Loads and stores with a cache hint.
template <typename T>
inline T __ldg(const T* source) {
  return *source;
}
template <typename T>
inline T __ldcs(const T* source) {
  return *source;
}
template <typename T>
inline void __stcs(T* target, T value) {
  *target = value;
}

// Arithmetic.  The approximate functions are exact here: tests compare with a tolerance that
// covers both.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return std::exp(a); }
inline float __exp10f(float a) { return std::pow(10.0f, a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
inline float __saturatef(float a) { return std::fmin(std::fmax(a, 0.0f), 1.0f); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }

inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }
inline int __clzll(long long a) {
  return a == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(a));
}
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (a >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

namespace perception3d {
namespace simt {
template <typename To, typename From>
inline To cast_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "bits of another size");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
}  // namespace simt
}  // namespace perception3d
inline unsigned __float_as_uint(float a) { return perception3d::simt::cast_bits<unsigned>(a); }
inline int __float_as_int(float a) { return perception3d::simt::cast_bits<int>(a); }
inline float __uint_as_float(unsigned a) { return perception3d::simt::cast_bits<float>(a); }
inline float __int_as_float(int a) { return perception3d::simt::cast_bits<float>(a); }
inline long long __double_as_longlong(double a) {
  return perception3d::simt::cast_bits<long long>(a);
}
inline double __longlong_as_double(long long a) { return perception3d::simt::cast_bits<double>(a); }

// CUDA has these outside of std, for numbers of different types too.
template <typename A, typename B>
inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <typename A, typename B>
inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

#undef P3D_SITE
