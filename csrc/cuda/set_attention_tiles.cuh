// Forward pass of set attention by tensor cores: own rows are queries, the others keys and values.
#pragma once

#include "cuda/attention_tiles.cuh"

namespace perception3d {
namespace cuda {

// What the softmax of this lane's own rows has met so far.
template <typename Tiles>
struct TileSoftmax {
  typename Tiles::Sums total;
  float largest[2], sum[2];  // sum: of this lane's columns

  __device__ __forceinline__ void clear_all() {
    clear<Tiles>(total);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      largest[half] = -INFINITY;
      sum[half] = 0;
    }
  }

  // Scores become weights relative to the largest score so far; what was summed up before follows.
  __device__ __forceinline__ void weigh(typename Tiles::Scores& weight, int half) {
    float top = largest[half];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float score = weight[i / 2][2 * half + i % 2];
      if (score > top) top = score;
    }
#pragma unroll
    for (int flip = 1; flip < 4; flip *= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, flip));
    const float base = top == -INFINITY ? 0 : top;  // nobody met so far
    const float shrink = exp2f(largest[half] - base);
    largest[half] = top;
    sum[half] *= shrink;
#pragma unroll
    for (int i = 0; i < 4 * Tiles::kSteps; ++i) total[i / 2][2 * half + i % 2] *= shrink;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& number = weight[i / 2][2 * half + i % 2];
      number = exp2f(number - base);
      sum[half] += number;
    }
  }
};

template <typename Tiles>
__global__ void __launch_bounds__(32 * kMostWarps, Tiles::kBlocks)
    attend_tiles(AttentionCall<typename Tiles::Scalar> call, float scale,
                 typename Tiles::Scalar* result, float* log_sum) {
  using Scalar = typename Tiles::Scalar;
  P3D_SHARED(int64_t, ranges, 2 * kRowsOfTile);
  const TileWarp<Tiles> warp(call, ranges);
  if (!warp.has_head()) return;
  typename Tiles::Rows query;
  warp.start_own(call.rows.query, 0);
  warp.finish_own();
  take_rows<Tiles>(warp.tile(0), query);

  TileSoftmax<Tiles> softmax;
  for (bool apart = false;; apart = true) {
    softmax.clear_all();
    warp.for_each_tile(
        call.rows.key, call.rows.value, apart, [](int) { return 0.0f; },
        [&](int first, int count, const Scalar* keys, const Scalar* values, float) {
          typename Tiles::Scores weight;
          score_rows<Tiles>(query, keys, weight);
          bool meets[2];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              float& score = weight[i / 2][2 * half + i % 2];
              score = warp.meets(half, i, first, count) ? score * scale : -INFINITY;
            }
            meets[half] = warp.meets_any(half, first, count);
            softmax.weigh(weight, half);
          }
          add_rows<Tiles>(weight, values, meets, apart, softmax.total);
        });
    // A value that is not finite has reached the rows of other sets too, as zero times itself.
    if (apart || !overflows<Tiles>(softmax.total)) break;
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = sum_over_columns(softmax.sum[half]);
    const int64_t place = warp.place(warp.row(half));
    if (!warp.exists(half)) continue;
    store_sums<Tiles>(softmax.total, half, 1 / sum, warp.width, result + place * warp.width);
    if (log_sum != nullptr && lane_number() % 4 == 0) {
      log_sum[place] = softmax.largest[half] + log_of_two(sum);
    }
  }
}

}  // namespace cuda
}  // namespace perception3d
