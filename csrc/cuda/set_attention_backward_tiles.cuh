// Backward pass of set attention by tensor cores.
#pragma once

#include "cuda/attention_tiles.cuh"

namespace perception3d {
namespace cuda {

// Product of two own rows, for one of this lane's own rows.
template <typename Tiles>
__device__ __forceinline__ float dot_own(const typename Tiles::Rows& a,
                                         const typename Tiles::Rows& b, int half) {
  using Scalar = typename Tiles::Scalar;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < Tiles::kSteps; ++k) {
#pragma unroll
    for (int i = half; i < 4; i += 2) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        sum += load(Scalar{static_cast<uint16_t>(a[k][i] >> (16 * part))}) *
               load(Scalar{static_cast<uint16_t>(b[k][i] >> (16 * part))});
      }
    }
  }
  return sum_over_columns(sum);
}

// Scores of own and other rows become weights, slopes become gradients of the scores: of what
// log_sum(half, i) and shift(half, i) return for the query among the two rows.
template <typename Tiles, typename LogSum, typename Shift>
__device__ __forceinline__ void weigh_slopes(const TileWarp<Tiles>& warp, int first, int count,
                                             float scale, const LogSum& log_sum, const Shift& shift,
                                             typename Tiles::Scores& weight,
                                             typename Tiles::Scores& slope, bool (&meets)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool together = warp.meets(half, i, first, count);
      float& score = weight[i / 2][2 * half + i % 2];
      float& grad = slope[i / 2][2 * half + i % 2];
      score = together ? exp2f(score * scale - log_sum(half, i)) : 0;
      grad = together ? score * (grad - shift(half, i)) : 0;
    }
    meets[half] = warp.meets_any(half, first, count);
  }
}

// Own rows are queries, the others keys and values.
template <typename Tiles>
__global__ void __launch_bounds__(32 * kMostWarps, Tiles::kBlocks)
    go_back_to_query_tiles(BackwardCall<typename Tiles::Scalar> call,
                           WritableHeadRows<typename Tiles::Scalar> grad_query) {
  using Scalar = typename Tiles::Scalar;
  P3D_SHARED(int64_t, ranges, 2 * kRowsOfTile);
  const auto& rows = call.forward.rows;
  const TileWarp<Tiles> warp(call.forward, ranges);
  if (!warp.has_head()) return;
  typename Tiles::Rows query, grad;
  warp.start_own(call.result, 0);
  warp.start_own(rows.query, 1);
  warp.start_own(call.grad, 2);
  warp.finish_own();
  take_rows<Tiles>(warp.tile(0), query);
  take_rows<Tiles>(warp.tile(2), grad);
  int row[2];
  float log_sum[2], shift[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    row[half] = warp.row(half);
    log_sum[half] = warp.exists(half) ? call.log_sum[warp.place(row[half])] : 0;
    shift[half] = dot_own<Tiles>(query, grad, half);
  }
  take_rows<Tiles>(warp.tile(1), query);

  typename Tiles::Sums total;
  for (bool apart = false;; apart = true) {
    clear<Tiles>(total);
    warp.for_each_tile(
        rows.key, rows.value, apart, [](int) { return 0.0f; },
        [&](int first, int count, const Scalar* keys, const Scalar* values, float) {
          typename Tiles::Scores weight, slope;
          score_rows<Tiles>(query, keys, weight);
          score_rows<Tiles>(grad, values, slope);
          bool meets[2];
          weigh_slopes<Tiles>(
              warp, first, count, call.scale * static_cast<float>(M_LOG2E),
              [&](int half, int) { return log_sum[half]; },
              [&](int half, int) { return shift[half]; }, weight, slope, meets);
          add_rows<Tiles>(slope, keys, meets, apart, total);
        });
    if (apart || !overflows<Tiles>(total)) break;
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!warp.exists(half)) continue;
    store_sums<Tiles>(total, half, call.scale, warp.width, grad_query.at(row[half], warp.head));
    if (lane_number() % 4 == 0) call.shift[warp.place(row[half])] = shift[half];
  }
}

// Own rows are keys and values, the others queries and gradients of results.
template <typename Tiles>
__global__ void __launch_bounds__(32 * kMostWarps, Tiles::kBlocks)
    go_back_to_key_tiles(BackwardCall<typename Tiles::Scalar> call,
                         WritableHeadRows<typename Tiles::Scalar> grad_key,
                         WritableHeadRows<typename Tiles::Scalar> grad_value) {
  using Scalar = typename Tiles::Scalar;
  P3D_SHARED(int64_t, ranges, 2 * kRowsOfTile);
  const auto& rows = call.forward.rows;
  const TileWarp<Tiles> warp(call.forward, ranges);
  if (!warp.has_head()) return;
  typename Tiles::Rows key, value;
  warp.start_own(rows.key, 0);
  warp.start_own(rows.value, 1);
  warp.finish_own();
  take_rows<Tiles>(warp.tile(0), key);
  take_rows<Tiles>(warp.tile(1), value);

  // The lower lanes keep the logarithms of sums, the upper ones the shifts.
  const float* const extra_of_lane = lane_number() < kRowsOfTile ? call.log_sum : call.shift;
  typename Tiles::Sums key_total, value_total;
  for (bool apart = false;; apart = true) {
    clear<Tiles>(key_total);
    clear<Tiles>(value_total);
    warp.for_each_tile(
        rows.query, call.grad, apart,
        [&](int row) { return extra_of_lane[row * rows.heads + warp.head]; },
        [&](int first, int count, const Scalar* queries, const Scalar* grads, float extra) {
          typename Tiles::Scores weight, slope;
          score_rows<Tiles>(key, queries, weight);
          score_rows<Tiles>(value, grads, slope);
          float log_sum[4], shift[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            log_sum[i] = __shfl_sync(kAllLanes, extra, column_of(i));
            shift[i] = __shfl_sync(kAllLanes, extra, kRowsOfTile + column_of(i));
          }
          bool meets[2];
          weigh_slopes<Tiles>(
              warp, first, count, call.scale * static_cast<float>(M_LOG2E),
              [&](int, int i) { return log_sum[i]; }, [&](int, int i) { return shift[i]; }, weight,
              slope, meets);
          add_rows<Tiles>(weight, grads, meets, apart, value_total);
          add_rows<Tiles>(slope, queries, meets, apart, key_total);
        });
    if (apart || !(overflows<Tiles>(key_total) || overflows<Tiles>(value_total))) break;
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp.row(half);
    if (!warp.exists(half)) continue;
    store_sums<Tiles>(key_total, half, call.scale, warp.width, grad_key.at(row, warp.head));
    store_sums<Tiles>(value_total, half, 1, warp.width, grad_value.at(row, warp.head));
  }
}

}  // namespace cuda
}  // namespace perception3d
