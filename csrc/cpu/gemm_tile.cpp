#include "cpu/gemm_tile.h"

#include <cstring>

#include "common/parallel.h"

namespace perception3d {
namespace {

template <int kRows, int kVectors, int kBytes, Sums kSums, typename Number>
P3D_INLINE void multiply_tile(const Tile<Number>& tile, int64_t column) {
  typedef Number Vector __attribute__((vector_size(kBytes)));
  constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(Number));
  Vector sum[kRows][kVectors] = {};
  if constexpr (kSums == Sums::kStart) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        std::memcpy(&sum[r][v], tile.starts[r] + column + v * kLanes, kBytes);
      }
    }
  }
  const Number* panel = tile.panel + column;
  for (int64_t d = 0; d < tile.depth; ++d, panel += tile.stride) {
    Vector factor[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) std::memcpy(&factor[v], panel + v * kLanes, kBytes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Number value = tile.rows[r][d * tile.step];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] += value * factor[v];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kSums == Sums::kContinue) {
        Vector before;
        std::memcpy(&before, tile.sums[r] + column + v * kLanes, kBytes);
        sum[r][v] += before;
      }
      std::memcpy(tile.sums[r] + column + v * kLanes, &sum[r][v], kBytes);
    }
  }
}

// A panel of `units` units on a machine with registers of kBytes: the sums have to fit into them.
template <int kRows, int kBytes, Sums kSums, typename Number>
P3D_INLINE void multiply_panel(const Tile<Number>& tile, int64_t units) {
  if constexpr (kBytes < kUnitBytes) {  // 16 registers: two vectors per row
    constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(Number));
    for (int64_t column = 0; column < units * kUnit<Number>; column += 2 * kLanes) {
      multiply_tile<kRows, 2, kBytes, kSums>(tile, column);
    }
  } else if (units == 1) {
    multiply_tile<kRows, 1, kBytes, kSums>(tile, 0);
  } else if (units == 2) {
    multiply_tile<kRows, 2, kBytes, kSums>(tile, 0);
  } else if (units == 3) {
    multiply_tile<kRows, 3, kBytes, kSums>(tile, 0);
  } else {
    multiply_tile<kRows, 4, kBytes, kSums>(tile, 0);
  }
}

template <int kBytes, Sums kSums, typename Number>
P3D_INLINE void multiply_rows_of(const Tile<Number>& tile, int64_t rows, int64_t units) {
  switch (rows) {
    case 1:
      return multiply_panel<1, kBytes, kSums>(tile, units);
    case 2:
      return multiply_panel<2, kBytes, kSums>(tile, units);
    case 3:
      return multiply_panel<3, kBytes, kSums>(tile, units);
    case 4:
      return multiply_panel<4, kBytes, kSums>(tile, units);
    case 5:
      return multiply_panel<5, kBytes, kSums>(tile, units);
    default:
      return multiply_panel<6, kBytes, kSums>(tile, units);
  }
}

// Functions of their own: inlined into loops over tiles the compiler would have too few registers
// for the addresses of the rows.
#define P3D_MULTIPLY(attributes, bytes, Number)                                  \
  attributes void start(const Tile<Number>& tile, int64_t rows, int64_t units) { \
    multiply_rows_of<bytes, Sums::kStart>(tile, rows, units);                    \
  }                                                                              \
  attributes void go_on(const Tile<Number>& tile, int64_t rows, int64_t units) { \
    multiply_rows_of<bytes, Sums::kContinue>(tile, rows, units);                 \
  }
#define P3D_MULTIPLY_BOTH(attributes, bytes) \
  P3D_MULTIPLY(attributes, bytes, float)     \
  P3D_MULTIPLY(attributes, bytes, double)
P3D_FOR_EACH_MACHINE(P3D_MULTIPLY_BOTH)
#undef P3D_MULTIPLY_BOTH
#undef P3D_MULTIPLY

}  // namespace

template <typename Number>
void multiply_rows(const Tile<Number>& tile, int64_t rows, int64_t units, Sums sums) {
  if (sums == Sums::kStart) {
    start(tile, rows, units);
  } else {
    go_on(tile, rows, units);
  }
}

template void multiply_rows(const Tile<float>&, int64_t, int64_t, Sums);
template void multiply_rows(const Tile<double>&, int64_t, int64_t, Sums);

}  // namespace perception3d
