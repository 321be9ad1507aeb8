#include "cpu/linear_attention_finish.h"

#include "cpu/lane_sums.h"

namespace perception3d {
namespace {

template <typename Number>
P3D_INLINE void add_all_rows(const Number* block, int64_t width, int64_t rows, Number* sum) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t c = 0; c < stride; c += lanes) {
    Vector<Number> total = {}, before;
    for (int64_t r = 0; r < rows; ++r) {
      Vector<Number> row;
      load_vector<kLanesOf<Number>>(block + r * stride + c, row);
      total += row;
    }
    load_vector<kLanesOf<Number>>(sum + c, before);
    before += total;
    store_vector<kLanesOf<Number>>(before, sum + c);
  }
}

// total = the products of two rows, vector by vector added up.
template <typename Number>
P3D_INLINE void multiply_rows(const Number* a, const Number* b, int64_t stride,
                              Vector<Number>& total) {
  total = Vector<Number>{};
  for (int64_t c = 0; c < stride; c += kLanesOf<Number>) {
    Vector<Number> left, right;
    load_vector<kLanesOf<Number>>(a + c, left);
    load_vector<kLanesOf<Number>>(b + c, right);
    total += left * right;
  }
}

template <typename Number>
P3D_INLINE Number dot(const Number* a, const Number* b, int64_t stride) {
  Vector<Number> total;
  multiply_rows(a, b, stride, total);
  return sum_lanes<Number>(total);
}

template <typename Number>
P3D_INLINE void all_normalisers(const Number* block, const Number* sum, int64_t width, int64_t rows,
                                Number epsilon, Number* scale) {
  const int64_t stride = padded<Number>(width);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    Vector<Number> products[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) multiply_rows(block + (r + i) * stride, sum, stride, products[i]);
    Four<Number> four;
    sum_lanes_of_four<Number>(products, four);
    four = 1 / (four + epsilon);
    store_vector<4>(four, scale + r);
  }
  for (; r < rows; ++r) {
    scale[r] = 1 / (dot(block + r * stride, sum, stride) + epsilon);
  }
}

template <typename Number>
P3D_INLINE void finish_all_queries(const Number* query, const Number* sum, int64_t width,
                                   int64_t rows, Number epsilon, const Number* w,
                                   const BlockRows<Number>& result, Number* scale,
                                   Number* grad_sum) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    const Number* q = query + r * stride;
    const Number* product = w + r * stride;
    Number* target = result.row(r);
    const Number reciprocal = 1 / (dot(q, sum, stride) + epsilon);
    const Number t = -(dot(q, product, stride) * reciprocal) * reciprocal;
    scale[r] = reciprocal;
    for (int64_t c = 0; c < stride; c += lanes) {
      Vector<Number> number, keys, grad, total;
      load_vector<kLanesOf<Number>>(q + c, number);
      load_vector<kLanesOf<Number>>(sum + c, keys);
      load_vector<kLanesOf<Number>>(product + c, grad);
      load_vector<kLanesOf<Number>>(grad_sum + c, total);
      grad = number > 0 ? reciprocal * grad + t * keys : Vector<Number>{};
      total += t * number;
      store_vector<kLanesOf<Number>>(grad, target + c);
      store_vector<kLanesOf<Number>>(total, grad_sum + c);
    }
  }
}

template <typename Number>
P3D_INLINE void scale_all_rows(const BlockRows<const Number>& source, const Number* scale,
                               int64_t width, int64_t rows, const BlockRows<Number>& result) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; c += lanes) {
      Vector<Number> row;
      load_vector<kLanesOf<Number>>(source.row(r) + c, row);
      row *= scale[r];
      store_vector<kLanesOf<Number>>(row, result.row(r) + c);
    }
  }
}

template <typename Number>
P3D_INLINE void finish_all_keys(const Number* key, const Number* grad_sum, int64_t width,
                                int64_t rows, const Number* grad, const BlockRows<Number>& result) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; c += lanes) {
      Vector<Number> number, total, row;
      load_vector<kLanesOf<Number>>(key + r * stride + c, number);
      load_vector<kLanesOf<Number>>(grad_sum + c, total);
      load_vector<kLanesOf<Number>>(grad + r * stride + c, row);
      row = number > 0 ? row + total : Vector<Number>{};
      store_vector<kLanesOf<Number>>(row, result.row(r) + c);
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
  constexpr int lanes = kLanesOf<Number>;
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
      Vector<Number> of_query, of_key;
      load_vector<lanes>(q + c, of_query);
      load_vector<lanes>(k + c, of_key);
      const Vector<Number> grad_query = of_query > 0 ? factor * of_key : Vector<Number>{};
      const Vector<Number> grad_key = of_key > 0 ? factor * of_query : Vector<Number>{};
      store_vector<lanes>(grad_query, q + c);
      store_vector<lanes>(grad_key, k + c);
    }
  }
}

}  // namespace

// One function per number, compiled for several machines.
#define P3D_DEFINE(Number)                                                                         \
  P3D_CLONES void add_rows(const Number* block, int64_t width, int64_t rows, Number* sum) {        \
    add_all_rows(block, width, rows, sum);                                                         \
  }                                                                                                \
  P3D_CLONES void normalisers(const Number* block, const Number* sum, int64_t width, int64_t rows, \
                              Number epsilon, Number* scale) {                                     \
    all_normalisers(block, sum, width, rows, epsilon, scale);                                      \
  }                                                                                                \
  P3D_CLONES void finish_queries(                                                                  \
      const Number* query, const Number* sum, int64_t width, int64_t rows, Number epsilon,         \
      const Number* w, const BlockRows<Number>& result, Number* scale, Number* grad_sum) {         \
    finish_all_queries(query, sum, width, rows, epsilon, w, result, scale, grad_sum);              \
  }                                                                                                \
  P3D_CLONES void scale_rows(const BlockRows<const Number>& source, const Number* scale,           \
                             int64_t width, int64_t rows, const BlockRows<Number>& result) {       \
    scale_all_rows(source, scale, width, rows, result);                                            \
  }                                                                                                \
  P3D_CLONES void finish_keys(const Number* key, const Number* grad_sum, int64_t width,            \
                              int64_t rows, const Number* grad, const BlockRows<Number>& result) { \
    finish_all_keys(key, grad_sum, width, rows, grad, result);                                     \
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
