// Folds the rows of every segment into one row, for sums and maxima alike.
//
// Rows are shared out in two ways at once.  Segments of up to kTile rows are folded by a group of
// lanes each, row after row.  Longer ones are cut where the list of places is cut into tiles of
// kTile; a block folds its part of a tile, and a second launch folds the parts.  So a segment of a
// million rows is spread over the whole GPU, and its result depends on no timing.
#pragma once

#include "common/packed.cuh"
#include "cuda/segment_reduce.h"
#include "cuda/segment_search.cuh"

namespace perception3d {
namespace cuda {

constexpr int kTile = 256;     // places
constexpr int kThreads = 256;  // of a block
constexpr int kAtOnce = 4;     // rows whose loads are under way together

// A fold has: Total, what it keeps per column; Scalar, what it reads; and
//   static Total start();
//   static void add(Total&, Scalar value, int64_t place);    one more row, in any order of places
//   static void merge(Total&, const Total&);
//   void write(const Total&, int64_t rows, int64_t index) const;   the result of a segment

// How a block is laid over rows: `lanes` neighbours share a row, kPack columns each.
struct Layout {
  int64_t columns;
  int lanes;  // power of two, up to 32
};

inline Layout make_layout(int64_t columns, int pack) {
  Layout layout{columns, 1};
  while (layout.lanes < 32 && layout.lanes * pack < columns) layout.lanes *= 2;
  return layout;
}

// Folds the places first, first + step, ... below last, for kPack columns from column on.
template <typename Fold, int kPack>
__device__ __forceinline__ void fold_places(const typename Fold::Scalar* values,
                                            const Segments& segments, int64_t columns,
                                            int64_t column, int64_t first, int64_t last, int step,
                                            typename Fold::Total* total) {
  using Scalar = typename Fold::Scalar;
  for (int64_t i = first; i < last; i += kAtOnce * step) {
    Packed<Scalar, kPack> rows[kAtOnce];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      // A row too many is read again and not added.
      const int64_t place = i + r * step < last ? i + r * step : i;
      const int64_t row = segments.order[place];
      check_index(row, segments.num_rows, "segment_reduce: order");
      rows[r] = load_packed<kPack>(values + row * columns + column);
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      if (i + r * step >= last) break;
#pragma unroll
      for (int c = 0; c < kPack; ++c) Fold::add(total[c], rows[r].number[c], i + r * step);
    }
  }
}

template <typename Fold, int kPack>
__device__ __forceinline__ void fold_short_segments(const Fold& fold,
                                                    const typename Fold::Scalar* values,
                                                    const Segments& segments, const Layout& layout,
                                                    int64_t block) {
  const int groups = kThreads / layout.lanes;
  const int64_t segment = block * groups + threadIdx.x / layout.lanes;
  if (segment >= segments.count) return;
  const int64_t begin = segments.offsets[segment], end = segments.offsets[segment + 1];
  if (end - begin > kTile) return;
  const int64_t step = layout.lanes * kPack;
  for (int64_t column = threadIdx.x % layout.lanes * kPack; column < layout.columns;
       column += step) {
    typename Fold::Total total[kPack];
#pragma unroll
    for (int c = 0; c < kPack; ++c) total[c] = Fold::start();
    fold_places<Fold, kPack>(values, segments, layout.columns, column, begin, end, 1, total);
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
      fold.write(total[c], end - begin, segment * layout.columns + column + c);
    }
  }
}

// Merges what the groups of a block have for the same columns; group 0 gets the result.
template <typename Fold, int kPack>
__device__ __forceinline__ void merge_groups(typename Fold::Total* total, int lanes,
                                             typename Fold::Total* shared) {
#pragma unroll
  for (int c = 0; c < kPack; ++c) shared[c * kThreads + threadIdx.x] = total[c];
  for (int half = kThreads / 2; half >= lanes; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
      Fold::merge(shared[c * kThreads + threadIdx.x], shared[c * kThreads + threadIdx.x + half]);
    }
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kPack; ++c) total[c] = shared[c * kThreads + threadIdx.x];
  __syncthreads();
}

// A long segment holds the first or the last place of every tile that it meets, so a tile has at
// most two parts of long segments: part 0 with its first place, part 1 with its last.
struct TileParts {
  int64_t begin, end;              // places of the tile
  int64_t first_segment, segment;  // of its first and its last place
};

__device__ __forceinline__ TileParts parts_of_tile(const Segments& segments, int64_t tile) {
  TileParts parts;
  parts.begin = tile * kTile;
  parts.end = min(parts.begin + kTile, segments.places);
  const int64_t last = segments.count - 1;
  parts.first_segment = segment_of_place(segments.offsets, 0, last, parts.begin);
  parts.segment = segment_of_place(segments.offsets, parts.first_segment, last, parts.end - 1);
  return parts;
}

__device__ __forceinline__ bool is_long(const Segments& segments, int64_t segment) {
  return segments.offsets[segment + 1] - segments.offsets[segment] > kTile;
}

// Folds the places begin .. end - 1 with all threads; total (columns).
template <typename Fold, int kPack>
__device__ __forceinline__ void fold_part(const typename Fold::Scalar* values,
                                          const Segments& segments, const Layout& layout,
                                          int64_t begin, int64_t end, typename Fold::Total* shared,
                                          typename Fold::Total* result) {
  const int groups = kThreads / layout.lanes;
  const int group = threadIdx.x / layout.lanes;
  for (int64_t first = 0; first < layout.columns; first += layout.lanes * kPack) {
    const int64_t column = first + threadIdx.x % layout.lanes * kPack;
    typename Fold::Total total[kPack];
#pragma unroll
    for (int c = 0; c < kPack; ++c) total[c] = Fold::start();
    if (column < layout.columns) {
      fold_places<Fold, kPack>(values, segments, layout.columns, column, begin + group, end, groups,
                               total);
    }
    merge_groups<Fold, kPack>(total, layout.lanes, shared);
    if (group > 0 || column >= layout.columns) continue;
#pragma unroll
    for (int c = 0; c < kPack; ++c) result[column + c] = total[c];
  }
}

// partial (2 * tiles, columns)
template <typename Fold, int kPack>
__device__ __forceinline__ void fold_tile(const typename Fold::Scalar* values,
                                          const Segments& segments, const Layout& layout,
                                          int64_t tile, typename Fold::Total* shared,
                                          typename Fold::Total* partial) {
  const TileParts parts = parts_of_tile(segments, tile);
  int64_t begin = parts.begin;
  for (int part = 0; part < 2; ++part) {
    const int64_t segment = part == 0 ? parts.first_segment : parts.segment;
    const int64_t end = min(parts.end, segments.offsets[segment + 1]);
    if (is_long(segments, segment)) {
      fold_part<Fold, kPack>(values, segments, layout, begin, end, shared,
                             partial + (2 * tile + part) * layout.columns);
    }
    if (parts.first_segment == parts.segment) return;
    begin = segments.offsets[parts.segment];
  }
}

// Blocks 0 .. short_blocks - 1 fold short segments, the others one tile each.
template <typename Fold, int kPack>
__global__ void __launch_bounds__(kThreads, 4)
    fold_segments(Fold fold, const typename Fold::Scalar* values, Segments segments, Layout layout,
                  int64_t short_blocks, typename Fold::Total* partial) {
  P3D_SHARED(typename Fold::Total, shared, kThreads * kPack);
  if (blockIdx.x < short_blocks) {
    fold_short_segments<Fold, kPack>(fold, values, segments, layout, blockIdx.x);
  } else {
    fold_tile<Fold, kPack>(values, segments, layout, blockIdx.x - short_blocks, shared, partial);
  }
}

// One block for each tile; it works if a long segment begins there.
template <typename Fold>
__global__ void __launch_bounds__(kThreads, 4)
    merge_tiles(Fold fold, Segments segments, Layout layout, const typename Fold::Total* partial) {
  P3D_SHARED(typename Fold::Total, shared, kThreads);
  const TileParts parts = parts_of_tile(segments, blockIdx.x);
  const int64_t segment = parts.segment;
  const int64_t begin = segments.offsets[segment], end = segments.offsets[segment + 1];
  if (begin < parts.begin || !is_long(segments, segment)) return;
  const int64_t first_tile = blockIdx.x, last_tile = (end - 1) / kTile;
  const int first_part = parts.first_segment == segment ? 0 : 1;
  const int groups = kThreads / layout.lanes;
  const int group = threadIdx.x / layout.lanes;
  for (int64_t first = 0; first < layout.columns; first += layout.lanes) {
    const int64_t column = first + threadIdx.x % layout.lanes;
    typename Fold::Total total = Fold::start();
    if (column < layout.columns) {
      for (int64_t tile = first_tile + group; tile <= last_tile; tile += groups) {
        const int64_t part = 2 * tile + (tile == first_tile ? first_part : 0);
        Fold::merge(total, partial[part * layout.columns + column]);
      }
    }
    merge_groups<Fold, 1>(&total, layout.lanes, shared);
    if (group == 0 && column < layout.columns) {
      fold.write(total, end - begin, segment * layout.columns + column);
    }
  }
}

template <typename Fold, int kPack>
Status launch_fold(const Fold& fold, const typename Fold::Scalar* values, const Segments& segments,
                   int64_t columns, void* workspace, Stream stream) {
  const Layout layout = make_layout(columns, kPack);
  const int64_t groups = kThreads / layout.lanes;
  const int64_t short_blocks = (segments.count + groups - 1) / groups;
  // Without a segment of more than kTile places there is nothing to cut.
  const int64_t tiles = segments.places > kTile ? (segments.places + kTile - 1) / kTile : 0;
  auto* partial = static_cast<typename Fold::Total*>(workspace);
  const Status status = launch(fold_segments<Fold, kPack>, short_blocks + tiles, kThreads, 0,
                               stream, fold, values, segments, layout, short_blocks, partial);
  if (status != nullptr) return status;
  return launch(merge_tiles<Fold>, tiles, kThreads, 0, stream, fold, segments,
                make_layout(columns, 1), partial);
}

template <typename Fold>
Status fold_rows(const Fold& fold, const typename Fold::Scalar* values, const Segments& segments,
                 int64_t columns, void* workspace, Stream stream) {
  using Scalar = typename Fold::Scalar;
  if (segments.count == 0 || columns == 0) return nullptr;
  return can_pack(values, columns)
             ? launch_fold<Fold, kPackedWidth<Scalar>>(fold, values, segments, columns, workspace,
                                                       stream)
             : launch_fold<Fold, 1>(fold, values, segments, columns, workspace, stream);
}

}  // namespace cuda
}  // namespace perception3d
