#include "cpu/linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/gemm_tile.h"
#include "cpu/lane_math.h"
#include "cpu/packed_weight.h"

namespace perception3d {
namespace {

// Rows that stay in the second-level cache while all panels of the weight pass, at most; few rows
// make smaller blocks, so that every thread gets its share.
constexpr int64_t kMostBlockRows = 24 * kTileRows;
constexpr int64_t kFewestBlockRows = 4 * kTileRows;
// Blocks that one thread takes in a row, so that it can fetch the next one ahead.
constexpr int64_t kMostBlocks = 64;
constexpr int64_t kTasksPerWorker = 4;
constexpr int64_t kFlopsPerWorker = 1 << 21;

template <typename Number>
struct LinearCall {
  RowMatrix<Number> rows;
  const Number* weight;  // packed
  int64_t padded;        // columns of the packed weight
  const Number* bias;    // `padded` numbers
  Activation activation;
  Number* result;
  int64_t columns;  // of the result
  int64_t block_rows;
  AddNorms<Number> norms;
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

// A panel of the weight, and which part of the rows a block further on is fetched while it is used.
struct Panel {
  int64_t first, width;
  int64_t fetch_begin, fetch_end;
};

template <typename Number>
P3D_INLINE void fetch_ahead(const LinearCall<Number>& call, const Panel& panel, int64_t row,
                            int64_t end) {
  for (int64_t r = row; r < std::min(row + kTileRows, end); ++r) {
    const Number* target = call.result + r * call.columns + panel.first;
    for (int64_t c = 0; c < panel.width; c += kUnit<Number>) __builtin_prefetch(target + c, 1, 3);
  }
  for (int64_t r = row + call.block_rows; r < std::min(row + call.block_rows + kTileRows, end);
       ++r) {
    const Number* source = call.rows.data + r * call.rows.step;
    for (int64_t d = panel.fetch_begin; d < panel.fetch_end; d += kUnit<Number>) {
      __builtin_prefetch(source + d, 0, 2);
    }
  }
}

// One panel of the weight on rows begin .. end - 1 of a task that ends with row `task_end`.
template <typename Number>
P3D_INLINE void multiply_block(const LinearCall<Number>& call, const Panel& panel, int64_t begin,
                               int64_t end, int64_t task_end) {
  alignas(kUnitBytes) Number space[kTileRows * kPanel<Number>];
  const int64_t count = std::min(panel.width, call.columns - panel.first);
  const bool whole = count == panel.width;
  Tile<Number> tile;
  tile.depth = call.rows.columns;
  tile.step = 1;
  tile.panel = call.weight + panel.first * tile.depth;
  tile.stride = panel.width;
  tile.start = call.bias + panel.first;
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, end - row);
    fetch_ahead(call, panel, row, task_end);
    for (int64_t r = 0; r < rows; ++r) {
      tile.rows[r] = call.rows.data + (row + r) * call.rows.step;
      tile.sums[r] =
          whole ? call.result + (row + r) * call.columns + panel.first : space + r * kPanel<Number>;
    }
    multiply_rows(tile, rows, panel.width / kUnit<Number>, Sums::kStart);
    for (int64_t r = 0; r < rows && call.activation != Activation::kNone; ++r) {
      activate_row(call.activation, panel.width, tile.sums[r]);
    }
    for (int64_t r = 0; r < rows && !whole; ++r) {
      std::copy_n(tile.sums[r], count, call.result + (row + r) * call.columns + panel.first);
    }
  }
}

// Rows begin .. end - 1 of the result.
template <typename Number>
P3D_INLINE void multiply_task_of(const LinearCall<Number>& call, int64_t begin, int64_t end) {
  const int64_t depth = call.rows.columns;
  for (int64_t block = begin; block < end; block += call.block_rows) {
    const int64_t block_end = std::min(end, block + call.block_rows);
    for (int64_t first = 0; first < call.padded; first += kPanel<Number>) {
      const int64_t width = std::min(kPanel<Number>, call.padded - first);
      const Panel panel{first, width, depth * first / call.padded / kUnit<Number> * kUnit<Number>,
                        depth * (first + width) / call.padded};
      multiply_block(call, panel, block, block_end, end);
    }
    if (call.norms.count > 0) {
      add_and_norm(call.norms, call.columns, block, block_end, call.result);
    }
  }
}

P3D_CLONES void multiply_task(const LinearCall<float>& call, int64_t begin, int64_t end) {
  multiply_task_of(call, begin, end);
}
P3D_CLONES void multiply_task(const LinearCall<double>& call, int64_t begin, int64_t end) {
  multiply_task_of(call, begin, end);
}

}  // namespace

template <typename Number>
void linear(const RowMatrix<Number>& rows, const LinearWeight<Number>& weight, const Number* bias,
            Activation activation, const AddNorms<Number>& norms, Number* result, int threads) {
  const PackedWeight<Number> packed(
      1, weight.in, weight.out, ConvWeight<Number>{weight.data, 0, weight.in_step, weight.out_step},
      threads);
  std::vector<Number> shift(packed.padded());
  if (bias != nullptr) std::copy_n(bias, weight.out, shift.data());
  const int workers = worker_count(threads, rows.rows * weight.in * weight.out, kFlopsPerWorker);
  const int64_t tasks = kTasksPerWorker * workers;
  const int64_t share = (rows.rows / tasks + kTileRows) / kTileRows * kTileRows;
  const int64_t block_rows = std::clamp(share, kFewestBlockRows, kMostBlockRows);
  const LinearCall<Number> call{rows,   packed.of_tap(0), packed.padded(), shift.data(), activation,
                                result, weight.out,       block_rows,      norms};
  const int64_t turn = std::clamp<int64_t>(share / block_rows, 1, kMostBlocks) * block_rows;
  for_each_dynamic(workers, (rows.rows + turn - 1) / turn, 1, [&](int64_t task) {
    multiply_task(call, task * turn, std::min(rows.rows, (task + 1) * turn));
  });
}

#define P3D_INSTANTIATE(Number)                                                              \
  template void linear(const RowMatrix<Number>&, const LinearWeight<Number>&, const Number*, \
                       Activation, const AddNorms<Number>&, Number*, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace perception3d
