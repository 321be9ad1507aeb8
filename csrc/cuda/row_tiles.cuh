// Products of rows that lie anywhere in memory: tiles of them in shared memory, 4 x 4 sums in the
// registers of every thread.
#pragma once

#include "common/packed.cuh"

namespace perception3d {
namespace cuda {

constexpr int kTileThreads = 256;  // as 16 x 16, each with 4 rows and 4 columns
constexpr int kTileWidth = 64;     // rows, and columns, of a product
constexpr int kTileDepth = 32;

// Numbers read from global memory at once: 16 bytes, or 4 of 16 bits.
template <typename Scalar>
constexpr int kTilePack = sizeof(Scalar) == 8 ? 2 : 4;

// Whether kPack numbers at once can be read from rows of `columns` numbers.
template <int kPack, typename Scalar>
bool can_fetch(const Scalar* rows, int64_t columns) {
  return columns % kPack == 0 && reinterpret_cast<uintptr_t>(rows) % (kPack * sizeof(Scalar)) == 0;
}

// Four numbers side by side in shared memory.
template <typename Number>
__device__ __forceinline__ void load_four(const Number* source, Number (&four)[4]) {
  constexpr int kPack = kPackedWidth<Number> < 4 ? kPackedWidth<Number> : 4;
#pragma unroll
  for (int first = 0; first < 4; first += kPack) {
    const auto piece = load_packed<kPack>(source + first);
#pragma unroll
    for (int i = 0; i < kPack; ++i) four[first + i] = piece.number[i];
  }
}

// A matrix in shared memory, rows of kColumns numbers and 16 bytes between them.
template <typename Number, int kColumns>
struct SharedTile {
  static constexpr int kStride = kColumns + kPackedWidth<Number>;

  Number* numbers;

  __device__ __forceinline__ Number* at(int row, int column) const {
    return numbers + row * kStride + column;
  }
};

// Fills rows 0 .. kRows - 1 of a tile: row r with columns first .. of `source` (rows of `columns`
// numbers) at row list[r], zeros beyond the end of list or row.  kPack divides `columns` and
// `first`.
template <int kRows, int kPack, typename Scalar, int kColumns>
__device__ __forceinline__ void fetch_rows(const Scalar* source, int64_t columns, int64_t first,
                                           const int32_t* list, int count,
                                           const SharedTile<Compute<Scalar>, kColumns>& tile) {
  constexpr int kPieces = kColumns / kPack;
  for (int i = threadIdx.x; i < kRows * kPieces; i += kTileThreads) {
    const int row = i / kPieces, column = i % kPieces * kPack;
    Packed<Scalar, kPack> piece = {};
    if (row < count && first + column < columns) {
      piece = load_packed<kPack>(source + list[row] * columns + first + column);
    }
#pragma unroll
    for (int c = 0; c < kPack; ++c) *tile.at(row, column + c) = load(piece.number[c]);
  }
}

// Lists `first` and `second` of the threads that keep them, in order of the threads; returns how
// many do.  All threads of the block have to call it; afterwards the lists can be read, until the
// next call.
__device__ __forceinline__ int list_kept(bool keep, int32_t first, int32_t second, int32_t* firsts,
                                         int32_t* seconds, int* counts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned votes = __ballot_sync(0xffffffffu, keep);
  __syncthreads();  // nobody reads the lists of the call before any more
  if (lane == 0) counts[warp] = __popc(votes);
  __syncthreads();
  int place = 0, total = 0;
  for (int i = 0; i < kTileThreads / 32; ++i) {
    place += i < warp ? counts[i] : 0;
    total += counts[i];
  }
  if (keep) {
    place += __popc(votes & ((1u << lane) - 1));
    firsts[place] = first;
    seconds[place] = second;
  }
  __syncthreads();
  return total;
}

}  // namespace cuda
}  // namespace perception3d
