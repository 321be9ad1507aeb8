#include "cpu/linear_attention_products.h"

namespace perception3d {
namespace {

// Rows of a tile of sums: with two vectors each, 16 registers of sums, which is what hides the
// latency of the multiply-adds.
constexpr int64_t kTile = 8;

template <int kVectors, typename Number>
P3D_INLINE void add_outer_tile(const BlockRows<const Number>& left, int64_t first_left,
                               const BlockRows<const Number>& right, int64_t first_right,
                               int64_t rows, int64_t stride, Number* matrix, Fetches& fetches) {
  constexpr int lanes = kLanesOf<Number>;
  Vector<Number> sum[kTile][kVectors] = {};
  Fetches ahead = fetches;
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    const Number* numbers = left.row(r) + first_left;
    const Number* factors = right.row(r) + first_right;
    Vector<Number> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) load_vector<lanes>(factors + v * lanes, factor[v]);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTile; ++i) {
      const Number number = numbers[i];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] += number * factor[v];
    }
  }
  fetches = ahead;
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTile; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Number* target = matrix + i * stride + v * lanes;
      Vector<Number> total;
      load_vector<lanes>(target, total);
      total += sum[i][v];
      store_vector<lanes>(total, target);
    }
  }
}

template <typename Number>
P3D_INLINE void add_outer(const BlockRows<const Number>& left, int64_t m,
                          const BlockRows<const Number>& right, int64_t n, int64_t rows,
                          Number* matrix, Fetches& fetches) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(n);
  for (int64_t i = 0; i < m; i += kTile) {
    Number* target = matrix + i * stride;
    int64_t j = 0;
    for (; j + 2 * lanes <= stride; j += 2 * lanes) {
      add_outer_tile<2>(left, i, right, j, rows, stride, target + j, fetches);
    }
    if (j < stride) add_outer_tile<1>(left, i, right, j, rows, stride, target + j, fetches);
  }
}

// The rows first .. first + kRows - 1 of a product, columns from `column` on.
template <int kRows, int kVectors, typename Number>
P3D_INLINE void multiply_tile(const BlockRows<const Number>& left, int64_t first, int64_t m,
                              const Number* matrix, int64_t stride, int64_t column,
                              const Number* scale, const BlockRows<Number>& result,
                              Fetches& fetches) {
  constexpr int lanes = kLanesOf<Number>;
  Vector<Number> sum[kRows][kVectors] = {};
  const Number* row[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) row[r] = left.row(first + r);
  // Stores wait for the lines that they change.
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Number* target = result.row(first + r) + column;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(target + v * lanes, 1, 3);
  }
  Fetches ahead = fetches;
  for (int64_t i = 0; i < m; ++i) {
    ahead.step();
    Vector<Number> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      load_vector<lanes>(matrix + i * stride + column + v * lanes, factor[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Number number = row[r][i];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] += number * factor[v];
    }
  }
  fetches = ahead;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Number factor = scale == nullptr ? Number{1} : scale[first + r];
    Number* target = result.row(first + r) + column;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] *= factor;
      store_vector<lanes>(sum[r][v], target + v * lanes);
    }
  }
}

template <int kRows, typename Number>
P3D_INLINE void multiply_rows(const BlockRows<const Number>& left, int64_t first, int64_t m,
                              const Number* matrix, int64_t stride, const Number* scale,
                              const BlockRows<Number>& result, Fetches& fetches) {
  constexpr int lanes = kLanesOf<Number>;
  int64_t j = 0;
  for (; j + 2 * lanes <= stride; j += 2 * lanes) {
    multiply_tile<kRows, 2>(left, first, m, matrix, stride, j, scale, result, fetches);
  }
  if (j < stride) {
    multiply_tile<kRows, 1>(left, first, m, matrix, stride, j, scale, result, fetches);
  }
}

template <typename Number>
P3D_INLINE void multiply_all(const BlockRows<const Number>& left, int64_t m, const Number* matrix,
                             int64_t n, int64_t rows, const Number* scale,
                             const BlockRows<Number>& result, Fetches& fetches) {
  const int64_t stride = padded<Number>(n);
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    multiply_rows<8>(left, r, m, matrix, stride, scale, result, fetches);
  }
  for (; r + 3 <= rows; r += 3) {
    multiply_rows<3>(left, r, m, matrix, stride, scale, result, fetches);
  }
  for (; r < rows; ++r) multiply_rows<1>(left, r, m, matrix, stride, scale, result, fetches);
}

template <typename Number>
P3D_INLINE void transpose_all(const Number* matrix, int64_t m, int64_t n, Number* transposed) {
  const int64_t stride = padded<Number>(n);
  const int64_t transposed_stride = padded<Number>(m);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) transposed[j * transposed_stride + i] = matrix[i * stride + j];
  }
}

}  // namespace

// One function per number, compiled for several machines.
#define P3D_DEFINE(Number)                                                                       \
  P3D_CLONES void add_outer_products(const BlockRows<const Number>& left, int64_t m,             \
                                     const BlockRows<const Number>& right, int64_t n,            \
                                     int64_t rows, Number* matrix, Fetches& fetches) {           \
    add_outer(left, m, right, n, rows, matrix, fetches);                                         \
  }                                                                                              \
  P3D_CLONES void multiply(const BlockRows<const Number>& left, int64_t m, const Number* matrix, \
                           int64_t n, int64_t rows, const Number* scale,                         \
                           const BlockRows<Number>& result, Fetches& fetches) {                  \
    multiply_all(left, m, matrix, n, rows, scale, result, fetches);                              \
  }                                                                                              \
  P3D_CLONES void transpose(const Number* matrix, int64_t m, int64_t n, Number* transposed) {    \
    transpose_all(matrix, m, n, transposed);                                                     \
  }
P3D_DEFINE(float)
P3D_DEFINE(double)
#undef P3D_DEFINE

}  // namespace perception3d
