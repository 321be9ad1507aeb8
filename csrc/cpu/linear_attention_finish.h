// What scattered_linear_attention does to rows one by one, between the products of blocks.
#pragma once

#include "cpu/linear_attention_blocks.h"

namespace perception3d {

// Arguments without a stride are blocks on the scratch pad.
//
// add_rows: sum (width) += rows of a block.
//
// normalisers: scale[i] = 1 / (block[i] . sum + epsilon).
//
// finish_queries: turns w = S g into the gradient of the query, where the query is positive:
//     r (w - r (q . w) s),  r = 1 / (q . s + epsilon).
//   scale[i] = r; grad_sum += -r^2 (q . w) q, the gradient of s.
//
// scale_rows: block[i] = scale[i] * rows[i].
//
// finish_keys: result = grad + grad_sum where the key is positive, else 0.
//
// Rows that are alone in their window, where the sums are products of the row's own key and value
// and nearly everything cancels out of the gradients: with z = q . k and r = 1 / (z + epsilon)
//     y = z r v,  dq = epsilon r^2 (v . g) k,  dk = epsilon r^2 (v . g) q,  dv = z r g.
// scales_alone: scale[i] = z r.
// finish_alone: the same, and dq and dk (0 where query or key is not positive) in the place of
//   query and key.
#define P3D_DECLARE(Number)                                                                  \
  void add_rows(const Number* block, int64_t width, int64_t rows, Number* sum);              \
  void normalisers(const Number* block, const Number* sum, int64_t width, int64_t rows,      \
                   Number epsilon, Number* scale);                                           \
  void finish_queries(const Number* query, const Number* sum, int64_t width, int64_t rows,   \
                      Number epsilon, const Number* w, const BlockRows<Number>& result,      \
                      Number* scale, Number* grad_sum);                                      \
  void scale_rows(const BlockRows<const Number>& source, const Number* scale, int64_t width, \
                  int64_t rows, const BlockRows<Number>& result);                            \
  void finish_keys(const Number* key, const Number* grad_sum, int64_t width, int64_t rows,   \
                   const Number* grad, const BlockRows<Number>& result);                     \
  void scales_alone(const Number* query, const Number* key, int64_t width, int64_t rows,     \
                    Number epsilon, Number* scale);                                          \
  void finish_alone(Number* query, Number* key, int64_t width, const Number* value,          \
                    const Number* grad, int64_t value_width, int64_t rows, Number epsilon,   \
                    Number* scale);
P3D_DECLARE(float)
P3D_DECLARE(double)
#undef P3D_DECLARE

}  // namespace perception3d
