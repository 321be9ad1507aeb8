// Two ways to multiply the rows of a tap: in the registers of each thread, and by tensor cores.
#pragma once

#include "common/conv_shape.h"
#include "cuda/row_tiles.cuh"
#include "cuda/tensor_tiles.cuh"

namespace perception3d {
namespace cuda {

// Rows of one tap: features[in[i]] belongs to the voxel out[i] of the block.
struct TapRows {
  const int32_t *in, *out;
  int count;
};

// A method has
//   Number, the type of sums; kBytes, the shared memory that it needs, aligned to 16; kBlocks, how
//   many blocks a multiprocessor shall hold, which limits registers; and
//   multiply(memory, shape, features, weights, tap, column, rows, sums): sums[out[i]][c] +=
//   features[in[i]] W[tap][.][column + c] for c < kTileWidth, called by all threads of the block,
//   with a barrier before and after.

// Sums of 4 x 4 in the registers of each thread.  kPack numbers of a row are read at once.
template <typename Scalar, int kPack>
struct ByThreads {
  typedef Compute<Scalar> Number;
  typedef SharedTile<Number, kTileDepth> Rows;
  typedef SharedTile<Number, kTileWidth> Columns;

  static constexpr int kBlocks = 2;
  static constexpr size_t kBytes =
      (kTileWidth * Rows::kStride + kTileDepth * Columns::kStride) * sizeof(Number);

  // Fetches kTileDepth x kTileWidth weights of a tap; zeros outside.  Neighbouring threads read
  // what lies side by side: rows of weights, or pieces of 8 of its columns, whose shared memory
  // then falls into different banks.
  __device__ static void fetch_weight(const ConvWeight<Scalar>& weight, const ConvShape& shape,
                                      int64_t tap, int64_t depth, int64_t column,
                                      const Columns& tile) {
    const bool by_row = weight.out == 1;
    for (int i = threadIdx.x; i < kTileDepth * kTileWidth; i += kTileThreads) {
      const int d = by_row ? i / kTileWidth : i / (8 * kTileWidth) * 8 + i % 8;
      const int c = by_row ? i % kTileWidth : i / 8 % kTileWidth;
      const bool exists = depth + d < shape.in_channels && column + c < shape.out_channels;
      const int64_t place = tap * weight.tap + (depth + d) * weight.in + (column + c) * weight.out;
      *tile.at(d, c) = exists ? load(weight.data[place]) : Number{0};
    }
  }

  __device__ static void multiply_tiles(const Rows& rows, const Columns& weight,
                                        Number (&sums)[4][4]) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 2
    for (int first = 0; first < kTileDepth; first += 4) {
      Number row[4][4];
#pragma unroll
      for (int r = 0; r < 4; ++r) load_four(rows.at(4 * y + r, first), row[r]);
#pragma unroll
      for (int d = 0; d < 4; ++d) {
        Number factor[4];
        load_four(weight.at(first + d, 4 * x), factor);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sums[r][c] += row[r][d] * factor[c];
        }
      }
    }
  }

  __device__ static void multiply(void* memory, const ConvShape& shape, const Scalar* features,
                                  const ConvWeight<Scalar>& weight, int64_t tap, int64_t column,
                                  const TapRows& rows, Number* all_sums) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const Rows row_tile{static_cast<Number*>(memory)};
    const Columns weight_tile{row_tile.numbers + kTileWidth * Rows::kStride};
    for (int first = 0; first < rows.count; first += kTileWidth) {
      Number sums[4][4] = {};
      for (int64_t depth = 0; depth < shape.in_channels; depth += kTileDepth) {
        fetch_rows<kTileWidth, kPack>(features, shape.in_channels, depth, rows.in + first,
                                      rows.count - first, row_tile);
        fetch_weight(weight, shape, tap, depth, column, weight_tile);
        __syncthreads();
        multiply_tiles(row_tile, weight_tile, sums);
        __syncthreads();
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int place = first + 4 * y + r;
        if (place >= rows.count) continue;
        Number* target = all_sums + rows.out[place] * kTileWidth + 4 * x;
#pragma unroll
        for (int c = 0; c < 4; ++c) target[c] += sums[r][c];
      }
    }
  }
};

// By tensor cores, for 16-bit numbers.  A tile of the weight has its depth as rows, or its columns
// with kTurned: whichever lies side by side in memory.
template <typename Scalar, bool kTurned>
struct ByTensorCores {
  typedef float Number;

  static constexpr int kBlocks = kTurned ? 3 : 4;
  static constexpr size_t kBytes = 2 * kTensorNumbers * sizeof(Scalar);

  // Whether the weights of every tap can be copied in pieces of 16 bytes.
  static bool can_read(const ConvWeight<Scalar>& weight, const ConvShape& shape) {
    const int64_t side_by_side = kTurned ? weight.in : weight.out;
    const int64_t row = kTurned ? weight.out : weight.in;
    return side_by_side == 1 && can_pack(weight.data, row) && can_pack(weight.data, weight.tap) &&
           can_pack(weight.data, kTurned ? shape.in_channels : shape.out_channels);
  }

  __device__ static void multiply(void* memory, const ConvShape& shape, const Scalar* features,
                                  const ConvWeight<Scalar>& weight, int64_t tap, int64_t column,
                                  const TapRows& rows, float* all_sums) {
    Scalar* row_tile = static_cast<Scalar*>(memory);
    Scalar* weight_tile = row_tile + kTensorNumbers;
    const Scalar* matrix = weight.data + tap * weight.tap;
    const int64_t row_step = kTurned ? weight.out : weight.in;
    const int64_t columns = kTurned ? shape.in_channels : shape.out_channels;
    const int64_t end = kTurned ? shape.out_channels : shape.in_channels;
    for (int first = 0; first < rows.count; first += kTensorTile) {
      float sums[4][4] = {};
      for (int64_t depth = 0; depth < shape.in_channels; depth += kTensorTile) {
        const auto listed = [&](int r) -> int64_t {
          return first + r < rows.count ? rows.in[first + r] : -1;
        };
        const int64_t begin = kTurned ? column : depth;
        const auto existing = [&](int r) -> int64_t { return begin + r < end ? begin + r : -1; };
        copy_rows(features, shape.in_channels, shape.in_channels, depth, listed, row_tile);
        copy_rows(matrix, row_step, columns, kTurned ? depth : column, existing, weight_tile);
        wait_for_copies<0>();
        __syncthreads();
        if (first + warp_row() < rows.count) {
          cuda::multiply_tiles<false, !kTurned>(row_tile, weight_tile, sums);
        }
        __syncthreads();
      }
      for_each_sum(sums, [&](int row, int c, float sum) {
        if (first + row < rows.count) all_sums[rows.out[first + row] * kTileWidth + c] += sum;
      });
    }
  }
};

}  // namespace cuda
}  // namespace perception3d
