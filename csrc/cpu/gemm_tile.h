// Products of a few rows with a panel of a matrix, with all sums in registers: the inner loop of
// convolutions and linear maps.
#pragma once

#include <cstdint>

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

// Where sums begin: with what lies at `sums`, or with other rows of numbers, at `starts`.
enum class Sums { kContinue, kStart };

// sums[r][c] = its start + sum over d < depth of rows[r][d * step] * panel[d * stride + c].  Unlike
// the sums, starts may be the same for several rows.
template <typename Number>
struct Tile {
  const Number* rows[kTileRows];
  Number* sums[kTileRows];
  int64_t depth, step;
  const Number* panel;
  int64_t stride;
  const Number* starts[kTileRows];
};

// `rows` (up to kTileRows) rows and a panel of `units` (up to kPanelUnits) units.
template <typename Number>
void multiply_rows(const Tile<Number>& tile, int64_t rows, int64_t units, Sums sums);

}  // namespace perception3d
