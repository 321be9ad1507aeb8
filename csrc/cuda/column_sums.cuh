// Sums over the rows of a matrix in one fixed order, in float64.
#pragma once

#include "common/launch.cuh"

namespace perception3d {
namespace cuda {

constexpr int kSumStrips = 8;

// Column i * inner + j of rows (count, stride) goes to result[j * outer + i].  A warp sums one
// strip of the rows for 32 columns; strips are added in order.
template <typename Number>
__global__ void __launch_bounds__(32 * kSumStrips)
    sum_columns(const Number* rows, int64_t count, int64_t stride, int64_t inner, int64_t outer,
                Number* result) {
  P3D_SHARED(double, sums, 32 * kSumStrips);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  const int strip = threadIdx.x / 32;
  double sum = 0;
  if (column < inner * outer) {
    const int64_t end = count * (strip + 1) / kSumStrips;
#pragma unroll 4
    for (int64_t row = count * strip / kSumStrips; row < end; ++row) {
      sum += rows[row * stride + column];
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (strip != 0 || column >= inner * outer) return;
  for (int other = 1; other < kSumStrips; ++other) sum += sums[other * 32 + threadIdx.x];
  result[column % inner * outer + column / inner] = static_cast<Number>(sum);
}

template <typename Number>
Status launch_column_sums(const Number* rows, int64_t count, int64_t stride, int64_t inner,
                          int64_t outer, Number* result, Stream stream) {
  return launch(sum_columns<Number>, Grid((inner * outer + 31) / 32), 32 * kSumStrips, 0, stream,
                rows, count, stride, inner, outer, result);
}

}  // namespace cuda
}  // namespace perception3d
