// What the kernels of set attention by tensor cores share, for 16-bit numbers.  As in
// attention_rows.cuh a block owns a piece of the places of `order`, here of 16, and a warp of it
// one head; the warp meets the rows of the sets that its own rows belong to 16 at a time.
//
// Of every product of 16 own and 16 other rows a lane keeps the numbers [i / 2][2 half + i % 2],
// which mma.cuh lays out: of the own rows g and g + 8 (g = lane / 4), which `half` tells apart, and
// of four of the other rows, column_of(i).
#pragma once

#include "common/async_copy.cuh"
#include "common/mma.cuh"
#include "cuda/attention_rows.cuh"

namespace perception3d {
namespace cuda {

constexpr int kRowsOfTile = 16;
constexpr int kWidestTile = 64;
constexpr int64_t kMostTileRows = int64_t{1} << 30;  // places are counted in 32 bits

// Heads of up to kColumns numbers, a multiple of 16; what a head lacks is filled with zeros.
template <typename Scalar_, int kColumns_>
struct AttentionTiles {
  using Scalar = Scalar_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kSteps = kColumns / 16;
  // From one row to the next: 16 bytes more than a row, so that 8 rows lie in different banks.
  static constexpr int kStride = kColumns + 8;
  static constexpr int kTile = kRowsOfTile * kStride;
  // Two tiles of other rows at hand and two on the way.
  static constexpr int kWarpNumbers = 4 * kTile;
  // Blocks that share a multiprocessor.
  static constexpr int kBlocks = kColumns > 32 ? 1 : 2;

  typedef uint32_t Rows[kSteps][4];   // own rows, as left factors
  typedef float Sums[2 * kSteps][4];  // own rows, summed up
  typedef float Scores[2][4];         // own rows by other rows
};

__device__ __forceinline__ int lane_number() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int column_of(int i) {
  return i / 2 * 8 + lane_number() % 4 * 2 + i % 2;
}

// Starts to copy one head of `count` rows into a tile; zeros beyond.  Lane r < count brings the
// number of row r.  All lanes take part.
template <typename Tiles>
__device__ __forceinline__ void copy_tile(const HeadRows<typename Tiles::Scalar>& rows,
                                          int row_of_lane, int count, int64_t head, int width,
                                          typename Tiles::Scalar* tile) {
  using Scalar = typename Tiles::Scalar;
  constexpr int kPieces = Tiles::kColumns / 8;
#pragma unroll
  for (int i = lane_number(); i < kRowsOfTile * kPieces; i += 32) {
    const int r = i / kPieces, column = i % kPieces * 8;
    const int row = __shfl_sync(kAllLanes, row_of_lane, r);
    Scalar* target = tile + r * Tiles::kStride + column;
    if (r < count && column < width) {
      copy_async(target, rows.at(row, head) + column);
    } else {
      store_packed(Packed<Scalar, 8>{}, target);
    }
  }
}

// The address that this lane brings to load_tiles for 16 x 16 numbers from `column` on.  The second
// fragment is `turned`: the next 8 columns of the same rows, else the next 8 rows.
template <typename Tiles>
__device__ __forceinline__ const typename Tiles::Scalar* piece_of_lane(
    const typename Tiles::Scalar* tile, int column, bool turned) {
  const int odd = lane_number() / 8 % 2 * 8, upper = lane_number() / 16 * 8;
  const int row = (turned ? upper : odd) + lane_number() % 8;
  return tile + row * Tiles::kStride + column + (turned ? odd : upper);
}

template <typename Tiles>
__device__ __forceinline__ void take_rows(const typename Tiles::Scalar* tile,
                                          typename Tiles::Rows& own) {
#pragma unroll
  for (int k = 0; k < Tiles::kSteps; ++k) {
    load_tiles<false>(own[k], piece_of_lane<Tiles>(tile, 16 * k, false));
  }
}

// Products of own and other rows.
template <typename Tiles>
__device__ __forceinline__ void score_rows(const typename Tiles::Rows& own,
                                           const typename Tiles::Scalar* others,
                                           typename Tiles::Scores& score) {
  using Scalar = typename Tiles::Scalar;
#pragma unroll
  for (int i = 0; i < 8; ++i) score[i / 4][i % 4] = 0;
#pragma unroll
  for (int k = 0; k < Tiles::kSteps; ++k) {
    uint32_t other[4];
    load_tiles<false>(other, piece_of_lane<Tiles>(others, 16 * k, true));
    mma_16x8x16<Scalar>(score[0], own[k], {other[0], other[1]});
    mma_16x8x16<Scalar>(score[1], own[k], {other[2], other[3]});
  }
}

// sums += weight * other rows.  `apart`: where the own row does not meet them, they are not even
// multiplied by zero.
template <typename Tiles>
__device__ __forceinline__ void add_rows(const typename Tiles::Scores& weight,
                                         const typename Tiles::Scalar* others,
                                         const bool (&meets)[2], bool apart,
                                         typename Tiles::Sums& sums) {
  using Scalar = typename Tiles::Scalar;
  const uint32_t factor[4] = {
      pack_pair<Scalar>(weight[0][0], weight[0][1]), pack_pair<Scalar>(weight[0][2], weight[0][3]),
      pack_pair<Scalar>(weight[1][0], weight[1][1]), pack_pair<Scalar>(weight[1][2], weight[1][3])};
  const auto add = [&](uint32_t low, uint32_t high, float (&sum)[4]) {
    if (!apart) return mma_16x8x16<Scalar>(sum, factor, {low, high});
    float part[4] = {};
    mma_16x8x16<Scalar>(part, factor, {low, high});
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (meets[i / 2]) sum[i] += part[i];
    }
  };
#pragma unroll
  for (int k = 0; k < Tiles::kSteps; ++k) {
    uint32_t other[4];
    load_tiles<true>(other, piece_of_lane<Tiles>(others, 16 * k, false));
    add(other[0], other[1], sums[2 * k]);
    add(other[2], other[3], sums[2 * k + 1]);
  }
}

template <typename Tiles>
__device__ __forceinline__ void clear(typename Tiles::Sums& sums) {
#pragma unroll
  for (int i = 0; i < 8 * Tiles::kSteps; ++i) sums[i / 4][i % 4] = 0;
}

// Whether a sum of any lane is infinite or not a number.
template <typename Tiles>
__device__ __forceinline__ bool overflows(const typename Tiles::Sums& sums) {
  bool any = false;
#pragma unroll
  for (int i = 0; i < 8 * Tiles::kSteps; ++i) any |= !(fabsf(sums[i / 4][i % 4]) < INFINITY);
  return __any_sync(kAllLanes, any) != 0;
}

// Sum over the lanes of an own row, in all of them.
__device__ __forceinline__ float sum_over_columns(float sum) {
#pragma unroll
  for (int flip = 1; flip < 4; flip *= 2) sum += __shfl_xor_sync(kAllLanes, sum, flip);
  return sum;
}

// The sums of one own row, times `factor`.
template <typename Tiles>
__device__ __forceinline__ void store_sums(const typename Tiles::Sums& sums, int half, float factor,
                                           int width, typename Tiles::Scalar* row) {
#pragma unroll
  for (int n = 0; n < 2 * Tiles::kSteps; ++n) {
    const int column = 8 * n + lane_number() % 4 * 2;
    if (column >= width) continue;
    Packed<typename Tiles::Scalar, 2> pair;
    store(sums[n][2 * half] * factor, pair.number[0]);
    store(sums[n][2 * half + 1] * factor, pair.number[1]);
    store_packed(pair, row + column);
  }
}

// A warp, its own rows and where the others are.
template <typename Tiles>
struct TileWarp {
  using Scalar = typename Tiles::Scalar;

  const AttentionCall<Scalar>& call;
  const int64_t* ranges;  // in shared memory, two per own row
  int present, first_other, last_other, width;
  int64_t head;
  int own_row;  // lane r, like lane r + 16: number of own row r
  Scalar* tiles;
  int begin[2], end[2];  // places of the sets of this lane's own rows

  // All threads of the block take part; shared: memory for two numbers per own row.
  __device__ __forceinline__ TileWarp(const AttentionCall<Scalar>& call_, int64_t* shared)
      : call(call_), ranges(shared), width(static_cast<int>(call_.rows.width)) {
    int64_t first, last;
    present = find_ranges<kRowsOfTile>(call.sets, call.num_rows, shared, first, last);
    first_other = static_cast<int>(first);
    last_other = static_cast<int>(last);
    head = head_of_warp();
    tiles = dynamic_shared<Scalar>() + threadIdx.x / 32 * Tiles::kWarpNumbers;
    const int first_own = static_cast<int>(blockIdx.x) * kRowsOfTile;
    own_row = row_of_lane(first_own, first_own + present);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      begin[half] = static_cast<int>(ranges[2 * own_of_lane(half)]);
      end[half] = static_cast<int>(ranges[2 * own_of_lane(half) + 1]);
    }
  }

  __device__ __forceinline__ bool has_head() const { return head < call.rows.heads; }
  __device__ __forceinline__ static int own_of_lane(int half) {
    return lane_number() / 4 + 8 * half;
  }
  __device__ __forceinline__ bool exists(int half) const { return own_of_lane(half) < present; }
  // Number of an own row.  All lanes take part.
  __device__ __forceinline__ int row(int half) const {
    return __shfl_sync(kAllLanes, own_row, own_of_lane(half));
  }
  // Where the number of a row and this head is in an array (num_rows, heads).
  __device__ __forceinline__ int64_t place(int row) const { return row * call.rows.heads + head; }
  __device__ __forceinline__ Scalar* tile(int which) const { return tiles + which * Tiles::kTile; }

  __device__ __forceinline__ int row_of_lane(int first, int last) const {
    const int place = first + lane_number() % kRowsOfTile;
    const int64_t row = place < last ? call.sets.order[place] : 0;
    check_index(row, call.num_rows, "set_attention: order");
    return static_cast<int>(row);
  }

  // Brings own rows into a tile; they are there after finish_own().
  __device__ __forceinline__ void start_own(const HeadRows<Scalar>& rows, int which) const {
    copy_tile<Tiles>(rows, own_row, present, head, width, tile(which));
    commit_copies();
  }
  __device__ __forceinline__ void finish_own() const {
    wait_for_copies<0>();
    __syncwarp();
  }

  // Whether other row column_of(i) of the `count` from place `first` on is in the set of the own
  // row, or any of them is.
  __device__ __forceinline__ bool meets(int half, int i, int first, int count) const {
    const int column = column_of(i);
    return column >= begin[half] - first && column < min(end[half] - first, count);
  }
  __device__ __forceinline__ bool meets_any(int half, int first, int count) const {
    return max(begin[half] - first, 0) < min(end[half] - first, count);
  }

  // The end of the tile that begins at `first`; `apart`: of one set only.
  __device__ __forceinline__ int end_of_tile(int first, bool apart) const {
    int last = last_other;
    if (apart && first < last_other) {
      int r = 0;
      while (r < present - 1 && ranges[2 * r + 1] <= first) ++r;
      last = static_cast<int>(ranges[2 * r + 1]);
    }
    return min(first + kRowsOfTile, last);
  }

  // Calls body(first, count, left, right, extra) for all other rows, tile by tile: the `count` rows
  // from place `first` on are in the tiles `left` and `right`, of the rows of those names, while
  // the next ones are on their way.  extra: what prepare(row) returned for the row of the lane.
  // `apart`: each set in tiles of its own.  All lanes take part.
  template <typename Prepare, typename Body>
  __device__ __forceinline__ void for_each_tile(const HeadRows<Scalar>& left,
                                                const HeadRows<Scalar>& right, bool apart,
                                                const Prepare& prepare, const Body& body) const {
    float extra = 0;
    const auto start = [&](int first, int last, int row, int which) {
      if (first < last) {
        copy_tile<Tiles>(left, row, last - first, head, width, tile(2 * which));
        copy_tile<Tiles>(right, row, last - first, head, width, tile(2 * which + 1));
        extra = prepare(row);
      }
      commit_copies();
    };
    __syncwarp();  // own rows have been taken
    int first = first_other, last = end_of_tile(first, apart), next_last = end_of_tile(last, apart);
    start(first, last, row_of_lane(first, last), 0);
    int row = row_of_lane(last, next_last);
    for (int which = 0; first < last_other; which ^= 1) {
      const float extra_now = extra;
      start(last, next_last, row, which ^ 1);
      const int later_last = end_of_tile(next_last, apart);
      row = row_of_lane(next_last, later_last);
      wait_for_copies<1>();
      __syncwarp();
      body(first, last - first, tile(2 * which), tile(2 * which + 1), extra_now);
      __syncwarp();  // before these rows are overwritten
      first = last;
      last = next_last;
      next_last = later_last;
    }
  }
};

// Whether rows can be copied in pieces of 16 bytes.
template <typename Scalar>
bool fits_tiles(const HeadRows<Scalar>& rows) {
  constexpr int64_t kPack = 8;
  return rows.row_stride % kPack == 0 && rows.head_stride % kPack == 0 &&
         reinterpret_cast<uintptr_t>(rows.numbers) % 16 == 0;
}

template <typename Scalar>
bool fits_tiles(const AttentionCall<Scalar>& call) {
  const auto& rows = call.rows;
  return sizeof(Scalar) == 2 && rows.width > 0 && rows.width <= kWidestTile &&
         rows.width % 8 == 0 && call.num_rows <= kMostTileRows && fits_tiles(rows.query) &&
         fits_tiles(rows.key) && fits_tiles(rows.value);
}

// Calls body with the tiles that fit the width, and returns what it returns.
template <typename Scalar, typename Body>
Status with_tiles(int64_t width, const Body& body) {
  if (width <= 16) return body(AttentionTiles<Scalar, 16>{});
  if (width <= 32) return body(AttentionTiles<Scalar, 32>{});
  return body(AttentionTiles<Scalar, kWidestTile>{});
}

// Starts a kernel with a warp for every 16 rows and head.
template <typename Tiles, typename... Parameters, typename... Arguments>
Status launch_tiles(void (*kernel)(Parameters...), int64_t num_rows, int64_t heads, Stream stream,
                    Arguments... arguments) {
  constexpr int64_t kWarpBytes = Tiles::kWarpNumbers * sizeof(typename Tiles::Scalar);
  const int64_t warps =
      std::clamp<int64_t>(48 * 1024 / kWarpBytes, 1, std::min<int64_t>(heads, kMostWarps));
  const Grid grid((num_rows + kRowsOfTile - 1) / kRowsOfTile, (heads + warps - 1) / warps);
  return launch(kernel, grid, dim3(static_cast<unsigned>(32 * warps)),
                static_cast<size_t>(warps * kWarpBytes), stream, arguments...);
}

}  // namespace cuda
}  // namespace perception3d
