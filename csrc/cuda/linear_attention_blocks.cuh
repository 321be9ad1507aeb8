// How the rows of windows are dealt out to blocks, and what all passes of the linear attention do
// with them.
//
// The list of places is cut into tiles.  A block takes one tile and one head.  Windows inside a
// tile are finished on the spot.  Windows that reach over its border leave their sums in a slot of
// the tile, a second launch joins the slots of each window in order, and a third goes on with the
// rows. Windows of up to kShortRows rows never come here: see linear_attention_short.cuh.  So
// memory grows with the number of rows only, and results depend on no timing.
#pragma once

#include "cuda/linear_attention_tiles.cuh"
#include "cuda/segment_search.cuh"

namespace perception3d {
namespace cuda {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kShortRows = 16;

template <typename Scalar>
struct Task {
  using Number = Compute<Scalar>;

  HeadSource<Scalar> query;
  HeadSource<Scalar> key;
  HeadSource<Scalar> value;
  const int64_t* offsets;
  int64_t num_windows;
  const int64_t* order;
  int64_t num_rows;
  int heads;
  int key_padded;  // widths rounded up to a multiple of the tile of products
  int value_padded;
  int tile_rows;
  Number epsilon;

  __host__ __device__ int matrix_size() const { return key_padded * row_stride(value_padded); }
  __host__ __device__ int64_t slot_size() const {
    return static_cast<int64_t>(key_padded) * (value_padded + 1);
  }
  // Sums of the window that reaches into the tile from before (0), or begins in it (1).
  __device__ Number* slot(Number* slots, int64_t tile, int begins, int64_t head) const {
    return slots + ((tile * 2 + begins) * heads + head) * slot_size();
  }
};

struct Window {
  int64_t begin;
  int64_t end;

  __device__ bool is_short() const { return end - begin <= kShortRows; }
  __device__ bool crosses(int tile_rows) const {
    return begin / tile_rows != (end - 1) / tile_rows;
  }
};

template <typename Scalar>
__device__ __forceinline__ Window window_of_place(const Task<Scalar>& task, int64_t place) {
  const int64_t w = segment_of_place(task.offsets, 0, task.num_windows - 1, place);
  const Window window{task.offsets[w], task.offsets[w + 1]};
  check_index(place - window.begin, window.end - window.begin,
              "scattered_linear_attention: place in its window");
  check_index(window.end, task.num_rows + 1, "scattered_linear_attention: offsets");
  return window;
}

// Shared memory handed out piece by piece, every piece on 16 bytes.
template <typename Number>
class SharedPieces {
 public:
  __device__ SharedPieces() : next_(dynamic_shared<Number>()) {}
  __device__ Number* take(int numbers) {
    Number* piece = next_;
    next_ += round_up(numbers, 4);
    return piece;
  }
  template <typename Other>
  __device__ Other* take_as(int count) {
    return reinterpret_cast<Other*>(take(count * static_cast<int>(sizeof(Other) / sizeof(Number))));
  }
  __device__ Number* take_rows(int rows, int padded) { return take(rows * row_stride(padded)); }

 private:
  Number* next_;
};

// A tile of places, one head, and the windows that it holds or cuts.
template <typename Scalar>
class TileBlock {
 public:
  using Number = Compute<Scalar>;

  __device__ TileBlock(const Task<Scalar>& task)
      : task_(task),
        tile_(blockIdx.x),
        head_(blockIdx.y),
        begin_(tile_ * task.tile_rows),
        end_(min(begin_ + task.tile_rows, task.num_rows)) {}

  __device__ int64_t tile() const { return tile_; }
  __device__ int64_t head() const { return head_; }

  // Window of every place of the tile; visible after the next barrier.
  __device__ void find_windows(Window* windows) const {
    for (int i = threadIdx.x; i < end_ - begin_; i += kThreads) {
      windows[i] = window_of_place(task_, begin_ + i);
    }
  }

  // Calls body(window, first, last) for windows that are not short, with their rows in the tile.
  template <typename Body>
  __device__ void for_each_window(const Window* windows, const Body& body) const {
    int64_t place = begin_;
    while (place < end_) {
      const Window window = windows[place - begin_];
      const int64_t stop = min(window.end, end_);
      if (!window.is_short()) {
        body(window, static_cast<int>(place - begin_), static_cast<int>(stop - begin_));
      }
      place = stop;
    }
  }

  // The same for the at most two windows that reach over the borders of the tile.
  template <typename Body>
  __device__ void for_each_crossing(const Body& body) const {
    const Window first = window_of_place(task_, begin_), last = window_of_place(task_, end_ - 1);
    if (!first.is_short() && first.crosses(task_.tile_rows)) {
      body(first, 0, static_cast<int>(min(first.end, end_) - begin_));
    }
    if (last.begin > first.begin && !last.is_short() && last.crosses(task_.tile_rows)) {
      body(last, static_cast<int>(last.begin - begin_), static_cast<int>(end_ - begin_));
    }
  }

  // Gathers the local rows [first, last) of one head to their places in `target`.
  template <bool kRelu>
  __device__ void gather(const HeadSource<Scalar>& source, int first, int last, int padded,
                         Number* target) const {
    gather_rows<kRelu>(source, head_, task_.order, task_.num_rows, begin_ + first, last - first, 0,
                       padded, target + first * row_stride(padded), threadIdx.x, kThreads);
  }
  __device__ int rows() const { return static_cast<int>(end_ - begin_); }
  __device__ int64_t row(int local) const {
    return row_of_place(task_.order, task_.num_rows, begin_ + local);
  }

  // The slot that this tile writes for a window, and the one where a window's joined sums are.
  __device__ Number* own_slot(Number* slots, const Window& window) const {
    return task_.slot(slots, tile_, window.begin >= begin_ ? 1 : 0, head_);
  }
  __device__ Number* joined_slot(Number* slots, const Window& window) const {
    return task_.slot(slots, window.begin / task_.tile_rows, 1, head_);
  }

 private:
  const Task<Scalar>& task_;
  int64_t tile_;
  int64_t head_;
  int64_t begin_;
  int64_t end_;
};

// matrix (m, n) = left^T right over shared rows, by the whole block.  Few tiles of the matrix are
// shared out by rows, whose sums are added in the order of the warps.  Ends with a barrier.
template <int kTile, typename Number>
__device__ __forceinline__ void sum_outer_products(const Number* left, int m, const Number* right,
                                                   int n, int rows, Number* matrix) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int across = n / kTile, tiles = m / kTile * across;
  const int groups = tiles < kWarps ? kWarps / tiles : 1;
  for (int base = 0; base < tiles * groups; base += kWarps) {
    const int job = base + warp, tile = job / groups, group = job % groups;
    const bool busy = tile < tiles;
    const int i = tile / across * kTile, j = tile % across * kTile;
    SumProduct<Number, kTile> product;
    product.clear();
    if (busy) {
      const int first = rows * group / groups, last = rows * (group + 1) / groups;
      add_outer_products<kTile>(left + first * row_stride(m) + i, row_stride(m),
                                right + first * row_stride(n) + j, row_stride(n), last - first,
                                lane, product);
    }
    for (int turn = 0; turn < groups; ++turn) {
      if (busy && group == turn) {
        product.for_each_piece(lane, [&](int a, int column, const Number* four) {
          Number* target = matrix + (i + sum_row<kTile>(lane, a)) * row_stride(n) + j + column;
          Four<Number> total;
          if (turn > 0) total = load_four(target);
#pragma unroll
          for (int c = 0; c < 4; ++c)
            total.number[c] = turn > 0 ? total.number[c] + four[c] : four[c];
          store_four(total, target);
        });
      }
      __syncthreads();
    }
  }
}

// sum (padded) = rows of a block, times weight[row] if there are weights.  Uses kWarps * padded
// numbers of scratch.  Ends with a barrier.
template <typename Number>
__device__ __forceinline__ void sum_rows(const Number* block, int padded, int rows,
                                         const Number* weight, Number* scratch, Number* sum) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first = rows * warp / kWarps, last = rows * (warp + 1) / kWarps;
  for (int d = lane; d < padded; d += kWarp) {
    Number total = 0;
    for (int r = first; r < last; ++r) {
      const Number number = block[r * row_stride(padded) + d];
      total += weight == nullptr ? number : weight[r] * number;
    }
    scratch[warp * padded + d] = total;
  }
  __syncthreads();
  for (int d = threadIdx.x; d < padded; d += kThreads) {
    Number total = scratch[d];
    for (int w = 1; w < kWarps; ++w) total += scratch[w * padded + d];
    sum[d] = total;
  }
  __syncthreads();
}

// Sums of a window in shared memory.
template <typename Number>
struct SharedSums {
  Number* matrix;  // (key_padded, row_stride(value_padded))
  Number* vector;  // (key_padded)
};

template <typename Scalar>
__device__ __forceinline__ void store_sums(const Task<Scalar>& task,
                                           const SharedSums<Compute<Scalar>>& sums,
                                           Compute<Scalar>* slot) {
  const int pieces = task.value_padded / 4;
  for (int i = threadIdx.x; i < task.key_padded * pieces; i += kThreads) {
    const int row = i / pieces, column = (i - row * pieces) * 4;
    const Compute<Scalar>* from = sums.matrix + row * row_stride(task.value_padded) + column;
    store_four(load_four(from), slot + row * task.value_padded + column);
  }
  auto* vector = slot + task.key_padded * task.value_padded;
  for (int d = threadIdx.x; d < task.key_padded; d += kThreads) vector[d] = sums.vector[d];
}

// Ends with a barrier.
template <typename Scalar>
__device__ __forceinline__ void load_sums(const Task<Scalar>& task, const Compute<Scalar>* slot,
                                          const SharedSums<Compute<Scalar>>& sums) {
  const int pieces = task.value_padded / 4;
  for (int i = threadIdx.x; i < task.key_padded * pieces; i += kThreads) {
    const int row = i / pieces, column = (i - row * pieces) * 4;
    auto* to = sums.matrix + row * row_stride(task.value_padded) + column;
    store_four(load_four(slot + row * task.value_padded + column), to);
  }
  const auto* vector = slot + task.key_padded * task.value_padded;
  for (int d = threadIdx.x; d < task.key_padded; d += kThreads) sums.vector[d] = vector[d];
  __syncthreads();
}

// Adds up the slots of the window that begins in a tile and reaches over its end, in order.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads) join_slots(Task<Scalar> task, Compute<Scalar>* slots) {
  using Number = Compute<Scalar>;
  const int64_t tile = blockIdx.x, head = blockIdx.y;
  const int64_t end = min((tile + 1) * task.tile_rows, task.num_rows);
  const Window window = window_of_place(task, end - 1);
  if (window.is_short() || window.begin < tile * task.tile_rows || window.end <= end) return;
  const int64_t last = (window.end - 1) / task.tile_rows;
  Number* target = task.slot(slots, tile, 1, head);
  for (int64_t i = threadIdx.x * 4; i < task.slot_size(); i += kThreads * 4) {
    Four<Number> total = load_four(target + i);
#pragma unroll 4
    for (int64_t other = tile + 1; other <= last; ++other) {
      const Four<Number> more = load_four(task.slot(slots, other, 0, head) + i);
#pragma unroll
      for (int c = 0; c < 4; ++c) total.number[c] += more.number[c];
    }
    store_four(total, target + i);
  }
}

}  // namespace cuda
}  // namespace perception3d
