// Windows of up to kShortRows rows: their rows attend to each other directly, through a matrix of
// all pairs, which costs less than the sums of so few rows.
//
// A warp takes kShortRows places and one head: the short windows that begin there have at most
// 2 kShortRows - 1 rows, side by side.  They share one matrix of 32 x 32 pairs, where pairs of
// different windows count as 0.  (So a NaN or an infinity among the values, or among keys on the
// way back, may reach rows of the windows beside.)
#pragma once

#include "cuda/linear_attention_blocks.cuh"

namespace perception3d {
namespace cuda {

constexpr int kShortWarps = 2;  // of a block
constexpr int kShortTurns = 4;  // groups of places that a warp takes
constexpr int kShortThreads = kShortWarps * kWarp;
constexpr int kShortPlaces = kShortWarps * kShortTurns * kShortRows;  // of a block
constexpr int kPairStride = kWarp + 4;

// The rows of one warp's short windows.
struct ShortRows {
  int64_t first;  // place of the first row
  int count;      // 0: no short window begins here
  int window;     // per lane: which window the lane's row belongs to; differs for absent rows
  bool alone;     // per lane: the row is the only one of its window
};

template <typename Scalar>
__device__ __forceinline__ ShortRows find_short_rows(const Task<Scalar>& task, int64_t first,
                                                     int lane) {
  const int64_t place = first + lane;
  Window window{-1, -1};
  if (place < task.num_rows) window = window_of_place(task, place);
  const bool mine = window.begin >= first && window.begin < first + kShortRows && window.is_short();
  const unsigned votes = __ballot_sync(kAllLanes, mine);
  const int lowest = votes == 0 ? 0 : __ffs(static_cast<int>(votes)) - 1;
  const int count = __popc(votes);
  // Rows become lanes 0 .. count - 1.
  const int from = min(lane + lowest, kWarp - 1);
  const int begin = __shfl_sync(kAllLanes, static_cast<int>(window.begin - first), from);
  const int length = __shfl_sync(kAllLanes, static_cast<int>(window.end - window.begin), from);
  return {first + lowest, count, lane < count ? begin : -1 - lane, lane < count && length == 1};
}

// Calls body(a, part, c, i, j, same) for the pairs that the lane holds of a product of 32 x 32,
// where `same` says that rows i and j belong to one window.
template <typename Body>
__device__ __forceinline__ void for_each_pair(const ShortRows& rows, int lane, const Body& body) {
  int mine[4];
#pragma unroll
  for (int a = 0; a < 4; ++a) mine[a] = __shfl_sync(kAllLanes, rows.window, product_row(lane, a));
#pragma unroll
  for (int part = 0; part < 2; ++part) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int j = lane % 4 * 4 + 16 * part + c;
      const int other = __shfl_sync(kAllLanes, rows.window, j);
#pragma unroll
      for (int a = 0; a < 4; ++a) body(a, part, c, j, mine[a] == other);
    }
  }
}

// Sum over the four lanes that share rows of a product.
template <typename Number>
__device__ __forceinline__ Number sum_of_row(Number number) {
  number += __shfl_xor_sync(kAllLanes, number, 1);
  return number + __shfl_xor_sync(kAllLanes, number, 2);
}

// Writes a product of 32 x 32 to shared memory.
template <typename Number>
__device__ __forceinline__ void store_pairs(RowProduct<Number, kWarp>& product, int lane,
                                            Number* pairs) {
  product.for_each_piece(lane, [&](int a, int column, const Number* four) {
    Four<Number> numbers;
#pragma unroll
    for (int c = 0; c < 4; ++c) numbers.number[c] = four[c];
    store_four(numbers, pairs + product_row(lane, a) * kPairStride + column);
  });
}

}  // namespace cuda
}  // namespace perception3d
