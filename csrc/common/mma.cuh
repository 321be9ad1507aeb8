// Products of small tiles on tensor cores, by all 32 lanes of a warp together.
//
// Fragments are laid out as PTX has them for mma.m16n8k16 (PTX ISA, "Warp-level matrix
// instructions"), with g = lane / 4 and t = lane % 4; each 32-bit register holds two 16-bit numbers
// of neighbouring columns (a) or rows (b), the lower index in the lower half:
//   a (16 x 16): a[0] row g,     columns 2t, 2t + 1      a[2] row g,     columns 2t + 8, 2t + 9
//                a[1] row g + 8, columns 2t, 2t + 1      a[3] row g + 8, columns 2t + 8, 2t + 9
//   b (16 x 8):  b[0] rows 2t, 2t + 1, column g          b[1] rows 2t + 8, 2t + 9, column g
//   c (16 x 8):  c[0], c[1] row g, columns 2t, 2t + 1    c[2], c[3] row g + 8, columns 2t, 2t + 1
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/launch.cuh"
#include "common/scalar.h"

namespace perception3d {

#if defined(P3D_SIMT)

namespace simt {

struct Fragments {
  uint32_t a[4], b[2];
  float c[4];
};

template <typename Scalar>
float number_in(uint32_t packed, int half) {
  return load(Scalar{static_cast<uint16_t>(packed >> (16 * half))});
}

template <typename Scalar>
const char* combine_tiles(uint32_t mask, const Payload* brought, Payload* taken) {
  if (mask != 0xffffffffu) return "needs all lanes";
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments mine = unpack<Fragments>(brought[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {
        a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = number_in<Scalar>(mine.a[i], half);
      }
      for (int i = 0; i < 2; ++i) b[2 * t + half + 8 * i][g] = number_in<Scalar>(mine.b[i], half);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    Fragments mine = unpack<Fragments>(brought[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) mine.c[i] += a[row][k] * b[k][column];
    }
    taken[lane] = pack(mine);
  }
  return nullptr;
}

}  // namespace simt

// c += a * b; Scalar is BFloat16 or Float16.
template <typename Scalar>
inline void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                        const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  simt::Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
  simt::Payload payload = simt::pack(mine);
  simt::warp_collective("mma_16x8x16", {file, line}, 0xffffffffu, simt::combine_tiles<Scalar>,
                        payload);
  mine = simt::unpack<simt::Fragments>(payload);
  for (int i = 0; i < 4; ++i) c[i] = mine.c[i];
}

// Loads four 8 x 8 tiles of 16-bit numbers from shared memory.  Lane 8 * i + r brings the address
// of row r of tile i (16 bytes, aligned to 16); fragment[i] gets row g, columns 2t, 2t + 1 of tile
// i, or with kTransposed rows 2t, 2t + 1, column g.
template <bool kTransposed>
inline void load_tiles(uint32_t (&fragment)[4], const void* row,
                       const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) simt::fail("load_tiles: a row is misaligned");
  const int lane = simt::thread_number() & 31;
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    const auto row_of = [&](int source) {
      return reinterpret_cast<const uint16_t*>(simt::shuffle(
          "load_tiles", {file, line}, 0xffffffffu, reinterpret_cast<uintptr_t>(row), source));
    };
    const uint16_t* first = row_of(8 * i + (kTransposed ? 2 * t : g));
    const uint16_t* second = row_of(8 * i + (kTransposed ? 2 * t + 1 : g));
    const uint32_t low = first[kTransposed ? g : 2 * t];
    const uint32_t high = second[kTransposed ? g : 2 * t + 1];
    fragment[i] = low | high << 16;
  }
}

#else

template <typename Scalar>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2]) {
  static_assert(std::is_same<Scalar, BFloat16>::value || std::is_same<Scalar, Float16>::value,
                "16-bit numbers only");
  if (std::is_same<Scalar, BFloat16>::value) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

template <bool kTransposed>
__device__ __forceinline__ void load_tiles(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
  }
}

#endif

// Two numbers as one register of a fragment, `low` at the lower index, rounded to nearest, ties to
// even.
#if defined(P3D_SIMT)
template <typename Scalar>
inline uint32_t pack_pair(float low, float high) {
  Scalar first, second;
  store(low, first);
  store(high, second);
  return static_cast<uint32_t>(first.bits) | static_cast<uint32_t>(second.bits) << 16;
}
#else
template <typename Scalar>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  uint32_t pair;
  if (std::is_same<Scalar, BFloat16>::value) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}
#endif

}  // namespace perception3d
