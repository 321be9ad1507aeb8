#include "cpu/linear_attention_tiles.h"

#include <algorithm>
#include <cstring>

namespace perception3d {
namespace {

// Rows of a tile of sums: with two vectors each, 16 registers of sums, which is what hides the
// latency of the multiply-adds.
constexpr int64_t kTile = 8;

// Sum of all lanes, by halves.
P3D_INLINE float sum_lanes(const Lanes<float>& lanes) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  Eight low8, high8;
  std::memcpy(&low8, &lanes, sizeof(low8));
  std::memcpy(&high8, reinterpret_cast<const char*>(&lanes) + sizeof(low8), sizeof(low8));
  low8 += high8;
  Four low4, high4;
  std::memcpy(&low4, &low8, sizeof(low4));
  std::memcpy(&high4, reinterpret_cast<const char*>(&low8) + sizeof(low4), sizeof(low4));
  low4 += high4;
  return (low4[0] + low4[2]) + (low4[1] + low4[3]);
}
P3D_INLINE double sum_lanes(const Lanes<double>& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <int kVectors, typename Number>
P3D_INLINE void add_outer_tile(const Number* left, int64_t left_stride, const Number* right,
                               int64_t right_stride, int64_t rows, Number* matrix) {
  constexpr int lanes = kLanes<Number>;
  Lanes<Number> sum[kTile][kVectors] = {};
  for (int64_t r = 0; r < rows; ++r) {
    Lanes<Number> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      load_vector<kLanes<Number>>(right + r * right_stride + v * lanes, factor[v]);
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTile; ++i) {
      const Number number = left[r * left_stride + i];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] += number * factor[v];
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTile; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Number* target = matrix + i * right_stride + v * lanes;
      Lanes<Number> total;
      load_vector<kLanes<Number>>(target, total);
      total += sum[i][v];
      store_vector<kLanes<Number>>(total, target);
    }
  }
}

template <typename Number>
P3D_INLINE void add_outer(const Number* left, int64_t m, const Number* right, int64_t n,
                          int64_t rows, Number* matrix) {
  constexpr int lanes = kLanes<Number>;
  const int64_t left_stride = padded<Number>(m);
  const int64_t right_stride = padded<Number>(n);
  for (int64_t i = 0; i < m; i += kTile) {
    int64_t j = 0;
    for (; j + 2 * lanes <= right_stride; j += 2 * lanes) {
      add_outer_tile<2>(left + i, left_stride, right + j, right_stride, rows,
                        matrix + i * right_stride + j);
    }
    if (j < right_stride) {
      add_outer_tile<1>(left + i, left_stride, right + j, right_stride, rows,
                        matrix + i * right_stride + j);
    }
  }
}

template <int kRows, int kVectors, typename Number>
P3D_INLINE void multiply_tile(const Number* left, int64_t left_stride, int64_t m,
                              const Number* matrix, int64_t stride, Number* result) {
  constexpr int lanes = kLanes<Number>;
  Lanes<Number> sum[kRows][kVectors] = {};
  for (int64_t i = 0; i < m; ++i) {
    Lanes<Number> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
      load_vector<kLanes<Number>>(matrix + i * stride + v * lanes, factor[v]);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Number number = left[r * left_stride + i];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] += number * factor[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
      store_vector<kLanes<Number>>(sum[r][v], result + r * stride + v * lanes);
  }
}

template <int kVectors, typename Number>
P3D_INLINE void multiply_columns(const Number* left, int64_t left_stride, int64_t m,
                                 const Number* matrix, int64_t stride, int64_t rows,
                                 Number* result) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    multiply_tile<8, kVectors>(left + r * left_stride, left_stride, m, matrix, stride,
                               result + r * stride);
  }
  for (; r + 3 <= rows; r += 3) {
    multiply_tile<3, kVectors>(left + r * left_stride, left_stride, m, matrix, stride,
                               result + r * stride);
  }
  for (; r < rows; ++r) {
    multiply_tile<1, kVectors>(left + r * left_stride, left_stride, m, matrix, stride,
                               result + r * stride);
  }
}

template <typename Number>
P3D_INLINE void multiply_all(const Number* left, int64_t m, const Number* matrix, int64_t n,
                             int64_t rows, Number* result) {
  constexpr int lanes = kLanes<Number>;
  const int64_t left_stride = padded<Number>(m);
  const int64_t stride = padded<Number>(n);
  int64_t j = 0;
  for (; j + 2 * lanes <= stride; j += 2 * lanes) {
    multiply_columns<2>(left, left_stride, m, matrix + j, stride, rows, result + j);
  }
  if (j < stride) {
    multiply_columns<1>(left, left_stride, m, matrix + j, stride, rows, result + j);
  }
}

template <typename Number>
P3D_INLINE void transpose_all(const Number* matrix, int64_t m, int64_t n, Number* transposed) {
  const int64_t stride = padded<Number>(n);
  const int64_t transposed_stride = padded<Number>(m);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) transposed[j * transposed_stride + i] = matrix[i * stride + j];
  }
}

template <typename Number>
P3D_INLINE void add_all_rows(const Number* block, int64_t width, int64_t rows, Number* sum) {
  constexpr int lanes = kLanes<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t c = 0; c < stride; c += lanes) {
    Lanes<Number> total = {}, before;
    for (int64_t r = 0; r < rows; ++r) {
      Lanes<Number> row;
      load_vector<kLanes<Number>>(block + r * stride + c, row);
      total += row;
    }
    load_vector<kLanes<Number>>(sum + c, before);
    before += total;
    store_vector<kLanes<Number>>(before, sum + c);
  }
}

template <typename Number>
P3D_INLINE Number dot(const Number* a, const Number* b, int64_t stride) {
  Lanes<Number> total = {};
  for (int64_t c = 0; c < stride; c += kLanes<Number>) {
    Lanes<Number> left, right;
    load_vector<kLanes<Number>>(a + c, left);
    load_vector<kLanes<Number>>(b + c, right);
    total += left * right;
  }
  return sum_lanes(total);
}

template <typename Number>
P3D_INLINE void all_normalisers(const Number* block, const Number* sum, int64_t width, int64_t rows,
                                Number epsilon, Number* scale) {
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    scale[r] = 1 / (dot(block + r * stride, sum, stride) + epsilon);
  }
}

template <typename Number>
P3D_INLINE void finish_all_queries(const Number* query, const Number* sum, int64_t width,
                                   int64_t rows, Number epsilon, Number* w, Number* scale,
                                   Number* grad_sum) {
  constexpr int lanes = kLanes<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    const Number* q = query + r * stride;
    Number* target = w + r * stride;
    const Number reciprocal = 1 / (dot(q, sum, stride) + epsilon);
    const Number t = -(dot(q, target, stride) * reciprocal) * reciprocal;
    scale[r] = reciprocal;
    for (int64_t c = 0; c < stride; c += lanes) {
      Lanes<Number> number, keys, grad, total;
      load_vector<kLanes<Number>>(q + c, number);
      load_vector<kLanes<Number>>(sum + c, keys);
      load_vector<kLanes<Number>>(target + c, grad);
      load_vector<kLanes<Number>>(grad_sum + c, total);
      grad = number > 0 ? reciprocal * grad + t * keys : Lanes<Number>{};
      total += t * number;
      store_vector<kLanes<Number>>(grad, target + c);
      store_vector<kLanes<Number>>(total, grad_sum + c);
    }
  }
}

template <typename Number>
P3D_INLINE void scale_all_rows(const Number* scale, int64_t width, int64_t rows, Number* block) {
  constexpr int lanes = kLanes<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; c += lanes) {
      Lanes<Number> row;
      load_vector<kLanes<Number>>(block + r * stride + c, row);
      row *= scale[r];
      store_vector<kLanes<Number>>(row, block + r * stride + c);
    }
  }
}

template <typename Number>
P3D_INLINE void finish_all_keys(const Number* key, const Number* grad_sum, int64_t width,
                                int64_t rows, Number* grad) {
  constexpr int lanes = kLanes<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; c += lanes) {
      Lanes<Number> number, total, row;
      load_vector<kLanes<Number>>(key + r * stride + c, number);
      load_vector<kLanes<Number>>(grad_sum + c, total);
      load_vector<kLanes<Number>>(grad + r * stride + c, row);
      row = number > 0 ? row + total : Lanes<Number>{};
      store_vector<kLanes<Number>>(row, grad + r * stride + c);
    }
  }
}

template <typename Number>
P3D_INLINE void all_scales_alone(const Number* query, const Number* key, int64_t width,
                                 int64_t rows, Number epsilon, Number* scale) {
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    const Number z = dot(query + r * stride, key + r * stride, stride);
    scale[r] = z / (z + epsilon);
  }
}

template <typename Number>
P3D_INLINE void finish_all_alone(Number* query, Number* key, int64_t width, const Number* value,
                                 const Number* grad, int64_t value_width, int64_t rows,
                                 Number epsilon, Number* scale) {
  constexpr int lanes = kLanes<Number>;
  const int64_t stride = padded<Number>(width);
  const int64_t value_stride = padded<Number>(value_width);
  for (int64_t r = 0; r < rows; ++r) {
    Number* q = query + r * stride;
    Number* k = key + r * stride;
    const Number z = dot(q, k, stride);
    const Number reciprocal = 1 / (z + epsilon);
    const Number along = dot(value + r * value_stride, grad + r * value_stride, value_stride);
    const Number factor = along * reciprocal * (epsilon * reciprocal);
    scale[r] = z * reciprocal;
    for (int64_t c = 0; c < stride; c += lanes) {
      Lanes<Number> of_query, of_key;
      load_vector<lanes>(q + c, of_query);
      load_vector<lanes>(k + c, of_key);
      const Lanes<Number> grad_query = of_query > 0 ? factor * of_key : Lanes<Number>{};
      const Lanes<Number> grad_key = of_key > 0 ? factor * of_query : Lanes<Number>{};
      store_vector<lanes>(grad_query, q + c);
      store_vector<lanes>(grad_key, k + c);
    }
  }
}

}  // namespace

// One function per number, compiled for several machines.
#define P3D_DEFINE(Number)                                                                         \
  P3D_CLONES void add_outer_products(const Number* left, int64_t m, const Number* right,           \
                                     int64_t n, int64_t rows, Number* matrix) {                    \
    add_outer(left, m, right, n, rows, matrix);                                                    \
  }                                                                                                \
  P3D_CLONES void multiply(const Number* left, int64_t m, const Number* matrix, int64_t n,         \
                           int64_t rows, Number* result) {                                         \
    multiply_all(left, m, matrix, n, rows, result);                                                \
  }                                                                                                \
  P3D_CLONES void transpose(const Number* matrix, int64_t m, int64_t n, Number* transposed) {      \
    transpose_all(matrix, m, n, transposed);                                                       \
  }                                                                                                \
  P3D_CLONES void add_rows(const Number* block, int64_t width, int64_t rows, Number* sum) {        \
    add_all_rows(block, width, rows, sum);                                                         \
  }                                                                                                \
  P3D_CLONES void normalisers(const Number* block, const Number* sum, int64_t width, int64_t rows, \
                              Number epsilon, Number* scale) {                                     \
    all_normalisers(block, sum, width, rows, epsilon, scale);                                      \
  }                                                                                                \
  P3D_CLONES void finish_queries(const Number* query, const Number* sum, int64_t width,            \
                                 int64_t rows, Number epsilon, Number* w, Number* scale,           \
                                 Number* grad_sum) {                                               \
    finish_all_queries(query, sum, width, rows, epsilon, w, scale, grad_sum);                      \
  }                                                                                                \
  P3D_CLONES void scale_rows(const Number* scale, int64_t width, int64_t rows, Number* block) {    \
    scale_all_rows(scale, width, rows, block);                                                     \
  }                                                                                                \
  P3D_CLONES void finish_keys(const Number* key, const Number* grad_sum, int64_t width,            \
                              int64_t rows, Number* grad) {                                        \
    finish_all_keys(key, grad_sum, width, rows, grad);                                             \
  }                                                                                                \
  P3D_CLONES void scales_alone(const Number* query, const Number* key, int64_t width,              \
                               int64_t rows, Number epsilon, Number* scale) {                      \
    all_scales_alone(query, key, width, rows, epsilon, scale);                                     \
  }                                                                                                \
  P3D_CLONES void finish_alone(Number* query, Number* key, int64_t width, const Number* value,     \
                               const Number* grad, int64_t value_width, int64_t rows,              \
                               Number epsilon, Number* scale) {                                    \
    finish_all_alone(query, key, width, value, grad, value_width, rows, epsilon, scale);           \
  }
P3D_DEFINE(float)
P3D_DEFINE(double)
#undef P3D_DEFINE

}  // namespace perception3d
