// Products of blocks of rows and small matrices.
#pragma once

#include "cpu/linear_attention_blocks.h"
#include "cpu/linear_attention_fetch.h"

namespace perception3d {

// add_outer_products: matrix (m, n) += left^T right, of blocks left (rows, m) and right (rows, n),
//   both readable up to padded(m) and padded(n).
// multiply: result (rows, n) = left (rows, m) matrix (m, n), row i times scale[i] unless scale is
//   null; written up to padded(n).
// transpose: transposed (n, m) = matrix (m, n)^T.
#define P3D_DECLARE(Number)                                                                      \
  void add_outer_products(const BlockRows<const Number>& left, int64_t m,                        \
                          const BlockRows<const Number>& right, int64_t n, int64_t rows,         \
                          Number* matrix, Fetches& fetches);                                     \
  void multiply(const BlockRows<const Number>& left, int64_t m, const Number* matrix, int64_t n, \
                int64_t rows, const Number* scale, const BlockRows<Number>& result,              \
                Fetches& fetches);                                                               \
  void transpose(const Number* matrix, int64_t m, int64_t n, Number* transposed);
P3D_DECLARE(float)
P3D_DECLARE(double)
#undef P3D_DECLARE

}  // namespace perception3d
