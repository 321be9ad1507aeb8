// Linear maps of blocks of rows: a block stays in the second-level cache while all panels of a
// weight pass, and from one map to the next.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/gemm_tile.h"
#include "cpu/lane_math.h"
#include "cpu/linear.h"
#include "cpu/packed_weight.h"

namespace perception3d {

// How rows are dealt out: tasks of about task_rows rows, which are worked on block by block.
struct RowPlan {
  int workers;
  int64_t block_rows, task_rows;
};

// `products`: multiply-adds per row.  Few rows make smaller blocks, so that every thread gets its
// share; a thread takes many blocks in a row, so that it can fetch the next one ahead.
inline RowPlan plan_rows(int64_t rows, int64_t products, int threads) {
  constexpr int64_t kMostBlockRows = 24 * kTileRows, kFewestBlockRows = 4 * kTileRows;
  constexpr int64_t kMostBlocks = 64, kTasksPerWorker = 4, kProductsPerWorker = 1 << 21;
  const int workers = worker_count(threads, rows * products, kProductsPerWorker);
  const int64_t tasks = kTasksPerWorker * workers;
  const int64_t share = (rows / tasks + kTileRows) / kTileRows * kTileRows;
  const int64_t block_rows = std::clamp(share, kFewestBlockRows, kMostBlockRows);
  return {workers, block_rows,
          std::clamp<int64_t>(share / block_rows, 1, kMostBlocks) * block_rows};
}

// A map with its weight in the order of the tiles.
template <typename Number>
class RowMap {
 public:
  RowMap(const LinearMap<Number>& map, int threads)
      : depth(map.weight.in),
        columns(map.weight.out),
        activation(map.activation),
        weight_(1, depth, columns,
                ConvWeight<Number>{map.weight.data, 0, map.weight.in_step, map.weight.out_step},
                threads),
        bias_(weight_.padded()) {
    if (map.bias != nullptr) std::copy_n(map.bias, columns, bias_.data());
  }

  const int64_t depth, columns;
  const Activation activation;

  int64_t padded() const { return weight_.padded(); }
  const Number* panel(int64_t first) const { return weight_.of_tap(0) + first * depth; }
  const Number* bias(int64_t first) const { return bias_.data() + first; }

 private:
  PackedWeight<Number> weight_;
  std::vector<Number> bias_;
};

template <typename Number>
P3D_INLINE void activate(Activation activation, Vector<Number>& numbers) {
  const Vector<Number> zero{};
  if (activation == Activation::kRelu) {
    numbers = numbers < zero ? zero : numbers;  // NaN stays NaN
  } else if (activation == Activation::kGelu) {
    if constexpr (sizeof(Number) == sizeof(float)) {
      const Vector<Number> before = numbers;
      gelu(before, numbers);
    } else {
      for (int lane = 0; lane < kLanesOf<Number>; ++lane) {
        numbers[lane] *= 0.5 * std::erfc(-numbers[lane] * 0.70710678118654752);
      }
    }
  }
}

// Applies the activation to `count` sums, which are whole units.
template <typename Number>
P3D_INLINE void activate_row(Activation activation, int64_t count, Number* sums) {
  for (int64_t c = 0; c < count; c += kLanesOf<Number>) {
    Vector<Number> numbers;
    load_vector<kLanesOf<Number>>(sums + c, numbers);
    activate<Number>(activation, numbers);
    store_vector<kLanesOf<Number>>(numbers, sums + c);
  }
}

// Some rows of a matrix: all in order, or those of a list.
template <typename Number>
struct SomeRows {
  const Number* data;
  int64_t count, columns, step;
  const int64_t* order;  // null: all

  P3D_INLINE int64_t number(int64_t r) const { return order == nullptr ? r : order[r]; }
  P3D_INLINE const Number* at(int64_t r) const { return data + number(r) * step; }
};

template <typename Number>
SomeRows<Number> rows_between(const RowMatrix<Number>& matrix, int64_t begin, int64_t end) {
  return {matrix.data + begin * matrix.step, end - begin, matrix.columns, matrix.step, nullptr};
}

// What a map does with a block of rows: result (rows, map.columns), contiguous.
template <typename Number>
struct MapBlock {
  SomeRows<Number> rows;
  Number* result;
  // The sums of row number n start with row start_of_row[n] of a table (.., map.columns) that a
  // unit of any numbers follows; without a table with the bias.
  const Number* starts;
  const int64_t* start_of_row;
  SomeRows<Number> next;  // at most as many, fetched meanwhile

  P3D_INLINE const Number* start(int64_t r, int64_t columns) const {
    return starts + start_of_row[rows.number(r)] * columns;
  }
};

// Fetches the places of the sums of the tile from `row` on, what the sums of the next tile start
// with, and a share of the rows that come next: the panels together fetch all of them.
template <typename Number>
P3D_INLINE void fetch_ahead(const RowMap<Number>& map, const MapBlock<Number>& block, int64_t row,
                            int64_t rows, int64_t first, int64_t width) {
  for (int64_t r = row; r < row + rows; ++r) {
    const Number* target = block.result + r * map.columns + first;
    for (int64_t c = 0; c < width; c += kUnit<Number>) __builtin_prefetch(target + c, 1, 3);
  }
  if (block.starts != nullptr) {
    const int64_t next_tile = row + kTileRows;
    for (int64_t r = next_tile; r < std::min(next_tile + kTileRows, block.rows.count); ++r) {
      const Number* start = block.start(r, map.columns) + first;
      for (int64_t c = 0; c < width; c += kUnit<Number>) __builtin_prefetch(start + c, 0, 3);
    }
  }
  const SomeRows<Number>& next = block.next;
  const int64_t begin = next.columns * first / map.padded() / kUnit<Number> * kUnit<Number>;
  const int64_t end = next.columns * (first + width) / map.padded();
  for (int64_t r = row; r < std::min(row + rows, next.count); ++r) {
    const Number* source = next.at(r);
    for (int64_t d = begin; d < end; d += kUnit<Number>) __builtin_prefetch(source + d, 0, 2);
  }
}

template <typename Number>
P3D_INLINE void map_block(const RowMap<Number>& map, const MapBlock<Number>& block) {
  alignas(kUnitBytes) Number space[kTileRows * kPanel<Number>];
  for (int64_t first = 0; first < map.padded(); first += kPanel<Number>) {
    const int64_t width = std::min(kPanel<Number>, map.padded() - first);
    const int64_t count = std::min(width, map.columns - first);
    const bool whole = count == width;
    Tile<Number> tile;
    tile.depth = map.depth;
    tile.step = 1;
    tile.panel = map.panel(first);
    tile.stride = width;
    for (int64_t row = 0; row < block.rows.count; row += kTileRows) {
      const int64_t rows = std::min(kTileRows, block.rows.count - row);
      fetch_ahead(map, block, row, rows, first, width);
      for (int64_t r = 0; r < rows; ++r) {
        tile.rows[r] = block.rows.at(row + r);
        tile.sums[r] =
            whole ? block.result + (row + r) * map.columns + first : space + r * kPanel<Number>;
        tile.starts[r] =
            block.starts == nullptr ? map.bias(first) : block.start(row + r, map.columns) + first;
      }
      multiply_rows(tile, rows, width / kUnit<Number>, Sums::kStart);
      for (int64_t r = 0; r < rows && map.activation != Activation::kNone; ++r) {
        activate_row(map.activation, width, tile.sums[r]);
      }
      for (int64_t r = 0; r < rows && !whole; ++r) {
        std::copy_n(tile.sums[r], count, block.result + (row + r) * map.columns + first);
      }
    }
  }
}

// result (rows, map.columns), contiguous.
template <typename Number>
void map_rows(const RowMap<Number>& map, const RowMatrix<Number>& rows, Number* result,
              int threads);

}  // namespace perception3d
