// Arithmetic of attention on vectors whose lanes are queries.  Everything here is inlined into
// functions that are compiled for registers of kBytes bytes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/parallel.h"
#include "cpu/vectors.h"

namespace perception3d {

template <typename Number, int kBytes>
struct LaneTypes;

template <int kBytes>
struct LaneTypes<float, kBytes> {
  static constexpr int kCount = kBytes / static_cast<int>(sizeof(float));
  typedef float Vec __attribute__((vector_size(kBytes), may_alias));
  typedef int32_t Mask __attribute__((vector_size(kBytes), may_alias));
};

template <int kBytes>
struct LaneTypes<double, kBytes> {
  static constexpr int kCount = kBytes / static_cast<int>(sizeof(double));
  typedef double Vec __attribute__((vector_size(kBytes), may_alias));
  typedef int64_t Mask __attribute__((vector_size(kBytes), may_alias));
};

// x = 2^x for x <= 127, to 1 unit in the last place; below -126 the result is 2^-126.  NaN stays.
template <int kBytes>
P3D_INLINE void exp2_lanes(typename LaneTypes<float, kBytes>::Vec& x) {
  using Vec = typename LaneTypes<float, kBytes>::Vec;
  using Mask = typename LaneTypes<float, kBytes>::Mask;
  const Vec least = Vec{} - 126.0f;
  x = x < least ? least : x;
  // Adding 1.5 * 2^23 rounds to an integer, which is left in the lowest bits of the sum.
  const Vec shifted = x + 12582912.0f;
  const Vec rest = x - (shifted - 12582912.0f);  // -0.5 .. 0.5
  // 2^rest, relative error below 2e-9 before rounding.
  Vec power = rest * 0.00015353362f + 0.0013398875f;
  power = power * rest + 0.009618437f;
  power = power * rest + 0.055503324f;
  power = power * rest + 0.24022648f;
  power = power * rest + 0.6931472f;
  power = power * rest + 1.0f;
  Mask bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 23) + 0x3f800000;
  Vec scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  x = power * scale;
}

template <int kBytes>
P3D_INLINE void exp2_lanes(typename LaneTypes<double, kBytes>::Vec& x) {
  for (int lane = 0; lane < LaneTypes<double, kBytes>::kCount; ++lane) x[lane] = std::exp2(x[lane]);
}

// Swaps the blocks of kStep lanes beside the diagonal of the rows a and b.
template <int kStep, typename Vec, typename Mask, int... kLane>
P3D_INLINE void swap_blocks(Vec& a, Vec& b, std::integer_sequence<int, kLane...>) {
  constexpr int count = sizeof...(kLane);
  const Mask from_first = {(kLane & kStep ? count + kLane - kStep : kLane)...};
  const Mask from_second = {(kLane & kStep ? count + kLane : kLane + kStep)...};
  const Vec first = __builtin_shuffle(a, b, from_first);
  b = __builtin_shuffle(a, b, from_second);
  a = first;
}

// Transposes the square of kCount vectors.
template <int kStep, typename Number, int kBytes>
P3D_INLINE void transpose_from(typename LaneTypes<Number, kBytes>::Vec* square) {
  using Vec = typename LaneTypes<Number, kBytes>::Vec;
  using Mask = typename LaneTypes<Number, kBytes>::Mask;
  constexpr int count = LaneTypes<Number, kBytes>::kCount;
  if constexpr (kStep < count) {
#pragma GCC unroll 16
    for (int row = 0; row < count; ++row) {
      if (row & kStep) continue;
      swap_blocks<kStep, Vec, Mask>(square[row], square[row + kStep],
                                    std::make_integer_sequence<int, count>{});
    }
    transpose_from<2 * kStep, Number, kBytes>(square);
  }
}

// The transpose of the square of kCount rows from number `column` on.
template <typename Number, int kBytes, typename Scalar>
P3D_INLINE void load_square(const Scalar* const* rows, int64_t column,
                            typename LaneTypes<Number, kBytes>::Vec* square) {
  constexpr int count = LaneTypes<Number, kBytes>::kCount;
#pragma GCC unroll 16
  for (int row = 0; row < count; ++row) {
    Numbers<Number, count> numbers;
    load_vector<count>(rows[row] + column, numbers);
    std::memcpy(&square[row], &numbers, kBytes);
  }
  transpose_from<1, Number, kBytes>(square);
}

// lanes (width, kCount) = the transpose of kCount rows, times scale.
template <typename Number, int kBytes, typename Scalar>
P3D_INLINE void lanes_from_rows(const Scalar* const* rows, int64_t width, Number scale,
                                typename LaneTypes<Number, kBytes>::Vec* lanes) {
  constexpr int count = LaneTypes<Number, kBytes>::kCount;
  int64_t d = 0;
  for (; d + count <= width; d += count) {
    typename LaneTypes<Number, kBytes>::Vec square[count];
    load_square<Number, kBytes>(rows, d, square);
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) lanes[d + i] = square[i] * scale;
  }
  if constexpr (kBytes > 16) {
    constexpr int half = count / 2;
    for (int first = 0; d + half <= width && first < count; first += half) {
      typename LaneTypes<Number, kBytes / 2>::Vec square[half];
      load_square<Number, kBytes / 2>(rows + first, d, square);
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) {
        square[i] *= scale;
        std::memcpy(reinterpret_cast<Number*>(lanes + d + i) + first, &square[i], kBytes / 2);
      }
    }
    d += d + half <= width ? half : 0;
  }
  for (; d < width; ++d) {
    for (int row = 0; row < count; ++row) lanes[d][row] = load(rows[row][d]) * scale;
  }
}

// Stores the transpose of a square into kCount rows from number `column` on.
template <typename Number, int kBytes, typename Scalar>
P3D_INLINE void store_square(typename LaneTypes<Number, kBytes>::Vec* square, int64_t column,
                             Scalar* const* rows) {
  constexpr int count = LaneTypes<Number, kBytes>::kCount;
  transpose_from<1, Number, kBytes>(square);
#pragma GCC unroll 16
  for (int row = 0; row < count; ++row) {
    Numbers<Number, count> numbers;
    std::memcpy(&numbers, &square[row], kBytes);
    store_vector<count>(numbers, rows[row] + column);
  }
}

// kCount rows = the transpose of lanes (width, kCount), row r times scale[r].
template <typename Number, int kBytes, typename Scalar>
P3D_INLINE void rows_from_lanes(const typename LaneTypes<Number, kBytes>::Vec* lanes, int64_t width,
                                const typename LaneTypes<Number, kBytes>::Vec& scale,
                                Scalar* const* rows) {
  constexpr int count = LaneTypes<Number, kBytes>::kCount;
  int64_t d = 0;
  for (; d + count <= width; d += count) {
    typename LaneTypes<Number, kBytes>::Vec square[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) square[i] = lanes[d + i] * scale;
    store_square<Number, kBytes>(square, d, rows);
  }
  if constexpr (kBytes > 16) {
    constexpr int half = count / 2;
    for (int first = 0; d + half <= width && first < count; first += half) {
      typename LaneTypes<Number, kBytes / 2>::Vec square[half], factor;
      std::memcpy(&factor, reinterpret_cast<const Number*>(&scale) + first, kBytes / 2);
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) {
        std::memcpy(&square[i], reinterpret_cast<const Number*>(lanes + d + i) + first, kBytes / 2);
        square[i] *= factor;
      }
      store_square<Number, kBytes / 2>(square, d, rows + first);
    }
    d += d + half <= width ? half : 0;
  }
  for (; d < width; ++d) {
    for (int row = 0; row < count; ++row) store(lanes[d][row] * scale[row], rows[row][d]);
  }
}

// dots[k] = rows[k] . lanes for kRows rows of `width` numbers.
template <int kRows, typename Vec, typename Number>
P3D_INLINE void dot_rows(const Number* const* rows, const Vec* lanes, int64_t width, Vec* dots) {
  const Number* row[kRows];
#pragma GCC unroll 8
  for (int k = 0; k < kRows; ++k) row[k] = rows[k];
  Vec sum[kRows] = {};
  for (int64_t d = 0; d < width; ++d) {
    const Vec lane = lanes[d];
#pragma GCC unroll 8
    for (int k = 0; k < kRows; ++k) sum[k] += lane * row[k][d];
  }
#pragma GCC unroll 8
  for (int k = 0; k < kRows; ++k) dots[k] = sum[k];
}

// dots[k] for `count` rows.  The last tile reaches back over rows that are done: cheaper than a
// narrow one.
template <typename Vec, typename Number>
P3D_INLINE void dot_all_rows(const Number* const* rows, int64_t count, const Vec* lanes,
                             int64_t width, Vec* dots) {
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) dot_rows<8>(rows + k, lanes, width, dots + k);
  if (k + 4 < count && k >= 8) {
    k = count - 8;
    return dot_rows<8>(rows + k, lanes, width, dots + k);
  }
  if (k < count && count >= 4) {
    if (k + 4 < count) dot_rows<4>(rows + k, lanes, width, dots + k);
    k = count - 4;
    return dot_rows<4>(rows + k, lanes, width, dots + k);
  }
  for (; k < count; ++k) dot_rows<1>(rows + k, lanes, width, dots + k);
}

// totals[d] += sum over the rows of rows[k][first + d] * weights[k], for kWidth numbers.
template <int kWidth, typename Vec, typename Number>
P3D_INLINE void add_rows(const Number* const* rows, int64_t count, int64_t first,
                         const Vec* weights, Vec* totals) {
  Vec sum[kWidth];
#pragma GCC unroll 8
  for (int d = 0; d < kWidth; ++d) sum[d] = totals[d];
  for (int64_t k = 0; k < count; ++k) {
    const Vec weight = weights[k];
    const Number* row = rows[k] + first;
#pragma GCC unroll 8
    for (int d = 0; d < kWidth; ++d) sum[d] += weight * row[d];
  }
#pragma GCC unroll 8
  for (int d = 0; d < kWidth; ++d) totals[d] = sum[d];
}

template <typename Vec, typename Number>
P3D_INLINE void add_all_rows(const Number* const* rows, int64_t count, const Vec* weights,
                             int64_t width, Vec* totals) {
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) add_rows<8>(rows, count, d, weights, totals + d);
  if (d + 4 <= width) {
    add_rows<4>(rows, count, d, weights, totals + d);
    d += 4;
  }
  for (; d < width; ++d) add_rows<1>(rows, count, d, weights, totals + d);
}

// totals[k] += sum over i < count of weights[k][i] * rows[i], for kRows totals of kVectors vectors;
// rows and totals have `stride` vectors.
template <int kRows, int kVectors, typename Vec>
P3D_INLINE void add_outer(const Vec* weights, const Vec* rows, int64_t count, int64_t stride,
                          Vec* totals) {
  Vec sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int k = 0; k < kRows; ++k) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[k][v] = totals[k * stride + v];
  }
  for (int64_t i = 0; i < count; ++i) {
    Vec row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = rows[i * stride + v];
#pragma GCC unroll 8
    for (int k = 0; k < kRows; ++k) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[k][v] += row[v] * weights[k][i];
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kRows; ++k) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) totals[k * stride + v] = sum[k][v];
  }
}

// The same for `keys` totals of `stride` vectors.
template <typename Vec>
P3D_INLINE void add_all_outer(const Vec* weights, int64_t keys, const Vec* rows, int64_t count,
                              int64_t stride, Vec* totals) {
  int64_t v = 0;
  for (; v + 2 <= stride; v += 2) {
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4) {
      add_outer<4, 2>(weights + k, rows + v, count, stride, totals + k * stride + v);
    }
    for (; k < keys; ++k) {
      add_outer<1, 2>(weights + k, rows + v, count, stride, totals + k * stride + v);
    }
  }
  if (v == stride) return;
  int64_t k = 0;
  for (; k + 8 <= keys; k += 8) {
    add_outer<8, 1>(weights + k, rows + v, count, stride, totals + k * stride + v);
  }
  for (; k < keys; ++k) {
    add_outer<1, 1>(weights + k, rows + v, count, stride, totals + k * stride + v);
  }
}

}  // namespace perception3d
