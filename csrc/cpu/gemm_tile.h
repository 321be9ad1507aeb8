// Products of a few rows with a panel of a matrix, with all sums in registers: the inner loop of
// convolutions as matrix products.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/parallel.h"

namespace perception3d {

// Matrices are cut into units of 64 bytes of columns, panels of up to kPanelUnits units.
constexpr int64_t kUnitBytes = 64;
constexpr int64_t kPanelUnits = 4;
// Rows of a tile: with a panel as wide as kPanelUnits registers of 64 bytes that makes 24 sums,
// which leaves room for 4 numbers of the panel and one of a row in 32 registers.
constexpr int64_t kTileRows = 6;

template <typename Number>
constexpr int64_t kUnit = kUnitBytes / static_cast<int64_t>(sizeof(Number));

template <typename Number>
constexpr int64_t units_of(int64_t columns) {
  return (columns + kUnit<Number> - 1) / kUnit<Number>;
}

// sums[r][c] += sum over d < depth of rows[r][d * step] * panel[d * stride + c].
template <typename Number>
struct Tile {
  const Number* rows[kTileRows];
  Number* sums[kTileRows];
  int64_t depth, step;
  const Number* panel;
  int64_t stride;
};

template <int kRows, int kVectors, int kBytes, typename Number>
P3D_INLINE void multiply_tile(const Tile<Number>& tile, int64_t column) {
  typedef Number Vector __attribute__((vector_size(kBytes)));
  constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(Number));
  Vector sum[kRows][kVectors] = {};
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
      Vector before;
      std::memcpy(&before, tile.sums[r] + column + v * kLanes, kBytes);
      sum[r][v] += before;
      std::memcpy(tile.sums[r] + column + v * kLanes, &sum[r][v], kBytes);
    }
  }
}

// A panel of `units` units on a machine with registers of kBytes: the sums have to fit into them.
template <int kRows, int kBytes, typename Number>
P3D_INLINE void multiply_panel(const Tile<Number>& tile, int64_t units) {
  if constexpr (kBytes < kUnitBytes) {  // 16 registers: two vectors per row
    constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(Number));
    for (int64_t column = 0; column < units * kUnit<Number>; column += 2 * kLanes) {
      multiply_tile<kRows, 2, kBytes>(tile, column);
    }
  } else if (units == 1) {
    multiply_tile<kRows, 1, kBytes>(tile, 0);
  } else if (units == 2) {
    multiply_tile<kRows, 2, kBytes>(tile, 0);
  } else if (units == 3) {
    multiply_tile<kRows, 3, kBytes>(tile, 0);
  } else {
    multiply_tile<kRows, 4, kBytes>(tile, 0);
  }
}

template <int kBytes, typename Number>
P3D_INLINE void multiply_rows(const Tile<Number>& tile, int64_t rows, int64_t units) {
  switch (rows) {
    case 1:
      return multiply_panel<1, kBytes>(tile, units);
    case 2:
      return multiply_panel<2, kBytes>(tile, units);
    case 3:
      return multiply_panel<3, kBytes>(tile, units);
    case 4:
      return multiply_panel<4, kBytes>(tile, units);
    case 5:
      return multiply_panel<5, kBytes>(tile, units);
    default:
      return multiply_panel<6, kBytes>(tile, units);
  }
}

}  // namespace perception3d
