// Products of 16-bit rows that lie anywhere in memory, by tensor cores: tiles of 64 x 64 numbers in
// shared memory, 16 x 32 sums per warp of a block of 8.
#pragma once

#include "common/async_copy.cuh"
#include "common/mma.cuh"
#include "common/packed.cuh"
#include "cuda/row_tiles.cuh"

namespace perception3d {
namespace cuda {

constexpr int kTensorTile = 64;  // rows, columns and depth of a tile
// Numbers from one row to the next: 16 bytes more than a row, so that tiles of 8 rows do not fall
// into the same banks.
constexpr int kTensorStride = kTensorTile + 8;
constexpr int kTensorNumbers = kTensorTile * kTensorStride;

// Starts to copy columns first .. first + 63 of rows row_of(r), r < kTensorTile, into a tile; zeros
// where row_of is negative or the row, of `columns` numbers, ends.  Rows lie `step` numbers apart,
// `columns` is a multiple of 8, and all rows are aligned to 16 bytes.
template <typename Scalar, typename RowOf>
__device__ __forceinline__ void copy_rows(const Scalar* source, int64_t step, int64_t columns,
                                          int64_t first, const RowOf& row_of, Scalar* tile) {
  constexpr int kPieces = kTensorTile / 8;
  for (int i = threadIdx.x; i < kTensorTile * kPieces; i += kTileThreads) {
    const int r = i / kPieces, column = i % kPieces * 8;
    const int64_t row = row_of(r);
    Scalar* target = tile + r * kTensorStride + column;
    if (row >= 0 && first + column < columns) {
      copy_async(target, source + row * step + first + column);
    } else {
      store_packed(Packed<Scalar, 8>{}, target);
    }
  }
  commit_copies();
}

// Where the sums of a warp begin.
__device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 % 4 * 16; }
__device__ __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / 128 * 32; }

// sums += a b over the depth of a tile, for the 16 x 32 sums of the warp: sums[n] are those of
// columns 8 n .. 8 n + 7, as mma.cuh has them.  Rows of the tile a are rows of the product, or its
// depth with kDepthFirstA; rows of b are the depth with kDepthFirstB, or columns of the product.
template <bool kDepthFirstA, bool kDepthFirstB, typename Scalar>
__device__ __forceinline__ void multiply_tiles(const Scalar* a, const Scalar* b,
                                               float (&sums)[4][4]) {
  const int tile = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
  const int low = tile % 2 * 8, high = tile / 2 * 8;
#pragma unroll
  for (int depth = 0; depth < kTensorTile; depth += 16) {
    uint32_t left[4];
    const int a_row = kDepthFirstA ? depth + high + r : warp_row() + low + r;
    const int a_column = kDepthFirstA ? warp_row() + low : depth + high;
    load_tiles<kDepthFirstA>(left, a + a_row * kTensorStride + a_column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t right[4];
      const int column = warp_column() + 16 * half;
      const int b_row = kDepthFirstB ? depth + low + r : column + high + r;
      const int b_column = kDepthFirstB ? column + high : depth + low;
      load_tiles<kDepthFirstB>(right, b + b_row * kTensorStride + b_column);
      mma_16x8x16<Scalar>(sums[2 * half], left, {right[0], right[1]});
      mma_16x8x16<Scalar>(sums[2 * half + 1], left, {right[2], right[3]});
    }
  }
}

// Calls body(row, column, sum) for the sums of this thread; row and column count in the tile.
template <typename Body>
__device__ __forceinline__ void for_each_sum(const float (&sums)[4][4], const Body& body) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      body(warp_row() + g + i / 2 * 8, warp_column() + 8 * n + 2 * t + i % 2, sums[n][i]);
    }
  }
}

}  // namespace cuda
}  // namespace perception3d
