// What the kernels of set attention share.  The places of `order` are cut into pieces of a few
// dozen rows, regardless of where sets begin: a block owns one piece, a warp of it one head.  The
// warp goes over all rows of all sets that its own rows belong to, some rows at a time in shared
// memory.  So short sets share a warp, long ones are spread over many, and nobody has to know the
// number of sets on the host.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/launch.cuh"
#include "common/packed.cuh"
#include "common/set_attention.h"
#include "cuda/segment_search.cuh"
#include "cuda/set_attention.h"

namespace perception3d {
namespace cuda {

constexpr int kMostWarps = 8;
constexpr int kOthers = 16;       // rows in shared memory at a time
constexpr int kOthersAtOnce = 8;  // whose scores are in registers together
constexpr unsigned kAllLanes = 0xffffffffu;

// kParts neighbouring lanes share one of the warp's own rows.  Lane part p keeps the numbers
// 4 (p + kParts i) .. + 3, i = 0, 1, ...: altogether kEach of them.
template <typename Scalar_, int kParts_, int kEach_>
struct AttentionShape {
  using Scalar = Scalar_;
  using Number = Compute<Scalar>;
  static constexpr int kParts = kParts_;
  static constexpr int kEach = kEach_;
  static constexpr int kColumns = kParts * kEach;
  static constexpr int kOwnRows = 32 / kParts;
  // Blocks that share a multiprocessor: leaves 128 registers to a thread, 255 where numbers are
  // wide.
  static constexpr int kBlocks = sizeof(Number) == 8 ? 1 : 2;
  static_assert(kColumns % 8 == 0, "all lanes take part in every copy");

  __device__ static int part() { return static_cast<int>(threadIdx.x) % kParts; }
  __device__ static int column(int i) { return 4 * (part() + kParts * (i / 4)) + i % 4; }
};

// Numbers of a kernel call; `packed`: rows can be read four numbers at a time.
template <typename Scalar>
struct AttentionCall {
  AttentionRows<Scalar> rows;
  RowSets sets;
  int64_t num_rows;
  bool packed;
};

// What the backward pass reads beside query, key and value.
template <typename Scalar>
struct BackwardCall {
  AttentionCall<Scalar> forward;
  HeadRows<Scalar> grad, result;
  const Compute<Scalar>* log_sum;  // (num_rows, heads)
  Compute<Scalar>* shift;          // (num_rows, heads): grad . result
  Compute<Scalar> scale;           // of the scores
};

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float log_of_two(float x) { return log2f(x); }
__device__ __forceinline__ double log_of_two(double x) { return log2(x); }

// Four numbers of a row from `column` on, zeros beyond its end.
template <typename Scalar, typename Number>
__device__ __forceinline__ void load_quad(const Scalar* row, int column, int width, bool packed,
                                          Number (&quad)[4]) {
  constexpr int kPack = kPackedWidth<Scalar> < 4 ? kPackedWidth<Scalar> : 4;
#pragma unroll
  for (int first = 0; first < 4; first += kPack) {
    if (packed && column < width) {
      const auto piece = load_packed<kPack>(row + column + first);
#pragma unroll
      for (int c = 0; c < kPack; ++c) quad[first + c] = load(piece.number[c]);
    } else {
#pragma unroll
      for (int c = first; c < first + kPack; ++c) {
        quad[c] = column + c < width ? load(row[column + c]) : Number{0};
      }
    }
  }
}

// This lane's part of a row.
template <typename Shape, typename Number>
__device__ __forceinline__ void load_part(const typename Shape::Scalar* row, int width, bool packed,
                                          Number (&numbers)[Shape::kEach]) {
#pragma unroll
  for (int i = 0; i < Shape::kEach; i += 4) {
    Number quad[4];
    load_quad(row, Shape::column(i), width, packed, quad);
#pragma unroll
    for (int c = 0; c < 4; ++c) numbers[i + c] = quad[c];
  }
}

// The way back, times `factor`.
template <typename Shape, typename Number>
__device__ __forceinline__ void store_part(const Number (&numbers)[Shape::kEach], Number factor,
                                           int width, typename Shape::Scalar* row) {
#pragma unroll
  for (int i = 0; i < Shape::kEach; ++i) {
    if (Shape::column(i) < width) store(numbers[i] * factor, row[Shape::column(i)]);
  }
}

// Sum over the lanes of a row, in all of them.
template <typename Shape, typename Number>
__device__ __forceinline__ Number sum_of_parts(Number sum) {
#pragma unroll
  for (int flip = Shape::kParts / 2; flip > 0; flip /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, flip);
  }
  return sum;
}

// Product of this lane's part with the same part of a row in shared memory, summed over the lanes.
template <typename Shape, typename Number>
__device__ __forceinline__ Number dot_parts(const Number (&numbers)[Shape::kEach],
                                            const Number* other) {
  Number sum = 0;
#pragma unroll
  for (int i = 0; i < Shape::kEach; i += 4) {
    Number quad[4];
    load_quad(other, Shape::column(i), Shape::kColumns, true, quad);
#pragma unroll
    for (int c = 0; c < 4; ++c) sum += numbers[i + c] * quad[c];
  }
  return sum_of_parts<Shape>(sum);
}

// sums += weight * row in shared memory.
template <typename Shape, typename Number>
__device__ __forceinline__ void add_part(Number weight, const Number* other,
                                         Number (&sums)[Shape::kEach]) {
#pragma unroll
  for (int i = 0; i < Shape::kEach; i += 4) {
    Number quad[4];
    load_quad(other, Shape::column(i), Shape::kColumns, true, quad);
#pragma unroll
    for (int c = 0; c < 4; ++c) sums[i + c] += weight * quad[c];
  }
}

// The row of this lane, and the places of its set: none for lanes without a row.
struct OwnRow {
  int64_t row, begin, end;

  __device__ bool exists() const { return end > begin; }
};

// The places of the sets of a block's own rows, two numbers per row in `ranges`, in shared memory;
// zeros beyond the last row.  first_other and last_other: places of all these sets.  Returns the
// number of own rows.  All threads of the block take part.
template <int kOwnRows>
__device__ __forceinline__ int find_ranges(const RowSets& sets, int64_t num_rows, int64_t* ranges,
                                           int64_t& first_other, int64_t& last_other) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kOwnRows;
  const int present = static_cast<int>(min(num_rows - first, int64_t{kOwnRows}));
  if (static_cast<int>(threadIdx.x) < kOwnRows) {
    int64_t begin = 0, end = 0;
    if (static_cast<int>(threadIdx.x) < present) {
      const int64_t place = first + threadIdx.x;
      const int64_t set = segment_of_place(sets.offsets, 0, sets.count - 1, place);
      begin = sets.offsets[set];
      end = sets.offsets[set + 1];
      check_index(place - begin, end - begin, "set_attention: offsets");
    }
    ranges[2 * threadIdx.x] = begin;
    ranges[2 * threadIdx.x + 1] = end;
  }
  __syncthreads();
  first_other = ranges[0];
  last_other = ranges[2 * present - 1];
  return present;
}

// The own row of the lane.  All threads of the block take part; `ranges` as above.
template <typename Shape>
__device__ __forceinline__ OwnRow find_own_row(const RowSets& sets, int64_t num_rows,
                                               int64_t* ranges, int64_t& first_other,
                                               int64_t& last_other) {
  const int present = find_ranges<Shape::kOwnRows>(sets, num_rows, ranges, first_other, last_other);
  const int own = static_cast<int>(threadIdx.x) % 32 / Shape::kParts;
  if (own >= present) return {0, 0, 0};
  const int64_t row = sets.order[static_cast<int64_t>(blockIdx.x) * Shape::kOwnRows + own];
  check_index(row, num_rows, "set_attention: order");
  return {row, ranges[2 * own], ranges[2 * own + 1]};
}

// Copies one head of `count` rows into shared memory, (kOthers, kColumns), converted; zeros beyond.
// Lane i < kOthers brings the number of row i.  All lanes take part.
template <typename Shape, typename Number>
__device__ __forceinline__ void copy_others(const HeadRows<typename Shape::Scalar>& rows,
                                            int64_t row_of_lane, int count, int64_t head, int width,
                                            bool packed, Number* target) {
  constexpr int kQuads = Shape::kColumns / 4;
  constexpr int kPack = kPackedWidth<Number> < 4 ? kPackedWidth<Number> : 4;
  for (int i = threadIdx.x % 32; i < kOthers * kQuads; i += 32) {
    const int other = i / kQuads, column = i % kQuads * 4;
    const int64_t row = __shfl_sync(kAllLanes, row_of_lane, other);
    Number quad[4] = {};
    if (other < count) load_quad(rows.at(row, head), column, width, packed, quad);
#pragma unroll
    for (int first = 0; first < 4; first += kPack) {
      Packed<Number, kPack> piece;
#pragma unroll
      for (int c = 0; c < kPack; ++c) piece.number[c] = quad[first + c];
      store_packed(piece, target + other * Shape::kColumns + column + first);
    }
  }
}

// Calls body(first, low, high, left, right, i) for every kOthersAtOnce other rows: `left` and
// `right` hold the rows in shared memory, `first` is the place of the first one in `order`, i its
// number in shared memory, and those from `low` up to `high` belong to the set of the lane's row.
// prepare(i, row) is called for every row by one lane, before.  All lanes of the warp take part;
// tile: shared memory for 2 * kOthers rows.
template <typename Shape, typename Prepare, typename Body, typename Number>
__device__ __forceinline__ void for_each_other(const AttentionCall<typename Shape::Scalar>& call,
                                               const HeadRows<typename Shape::Scalar>& left,
                                               const HeadRows<typename Shape::Scalar>& right,
                                               const OwnRow& own, int64_t first_other,
                                               int64_t last_other, int64_t head, Number* tile,
                                               const Prepare& prepare, const Body& body) {
  const int lane = threadIdx.x % 32, width = static_cast<int>(call.rows.width);
  Number* const right_tile = tile + kOthers * Shape::kColumns;
  for (int64_t first = first_other; first < last_other; first += kOthers) {
    const int count = static_cast<int>(min(last_other - first, int64_t{kOthers}));
    const int64_t row = lane < count ? call.sets.order[first + lane] : 0;
    check_index(row, call.num_rows, "set_attention: order");
    __syncwarp();  // all lanes are done with the rows before
    copy_others<Shape>(left, row, count, head, width, call.packed, tile);
    copy_others<Shape>(right, row, count, head, width, call.packed, right_tile);
    if (lane < count) prepare(lane, row);
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < count; i += kOthersAtOnce) {
      const int64_t place = first + i;
      const int low = static_cast<int>(max(own.begin - place, int64_t{0}));
      const int high = static_cast<int>(min(own.end - place, int64_t{kOthersAtOnce}));
      body(low, high, tile + i * Shape::kColumns, right_tile + i * Shape::kColumns, i);
    }
  }
}

// Warps of a block, and what they need of shared memory.
template <typename Shape>
struct AttentionLaunch {
  static constexpr int64_t kTileNumbers = 2 * kOthers * (Shape::kColumns + 1);
  static constexpr int64_t kTileBytes = kTileNumbers * sizeof(typename Shape::Number);

  int64_t warps;
  Grid grid;

  AttentionLaunch(int64_t num_rows, int64_t heads)
      : warps(std::clamp<int64_t>(48 * 1024 / kTileBytes, 1, std::min<int64_t>(heads, kMostWarps))),
        grid((num_rows + Shape::kOwnRows - 1) / Shape::kOwnRows, (heads + warps - 1) / warps) {}

  dim3 block() const { return dim3(static_cast<unsigned>(32 * warps)); }
  size_t shared_bytes() const { return static_cast<size_t>(warps * kTileBytes); }
};

// The head of this warp, and its tile.
__device__ __forceinline__ int64_t head_of_warp() {
  return static_cast<int64_t>(blockIdx.y) * (blockDim.x / 32) + threadIdx.x / 32;
}
template <typename Shape>
__device__ __forceinline__ typename Shape::Number* tile_of_warp() {
  return dynamic_shared<typename Shape::Number>() +
         threadIdx.x / 32 * AttentionLaunch<Shape>::kTileNumbers;
}

template <typename Scalar>
bool reads_quads(const HeadRows<Scalar>& rows, int64_t width) {
  constexpr int64_t kPack = kPackedWidth<Scalar> < 4 ? kPackedWidth<Scalar> : 4;
  return width % 4 == 0 && rows.row_stride % kPack == 0 && rows.head_stride % kPack == 0 &&
         reinterpret_cast<uintptr_t>(rows.numbers) % (kPack * sizeof(Scalar)) == 0;
}

template <typename Scalar>
AttentionCall<Scalar> attention_call(const AttentionRows<Scalar>& rows, const RowSets& sets,
                                     int64_t num_rows) {
  const bool packed = reads_quads(rows.query, rows.width) && reads_quads(rows.key, rows.width) &&
                      reads_quads(rows.value, rows.width);
  return {rows, sets, num_rows, packed};
}

// Calls body with the shape that fits the width, and returns what it returns.
template <typename Scalar, typename Body>
Status with_attention_shape(int64_t width, const Body& body) {
  if (width <= 16) return body(AttentionShape<Scalar, 2, 8>{});
  if (width <= 24) return body(AttentionShape<Scalar, 2, 12>{});
  if (width <= 32) return body(AttentionShape<Scalar, 4, 8>{});
  if (width <= 64) return body(AttentionShape<Scalar, 8, 8>{});
  if (width <= kWidestHead) return body(AttentionShape<Scalar, 32, 8>{});
  return "heads of more than 256 numbers";
}

}  // namespace cuda
}  // namespace perception3d
