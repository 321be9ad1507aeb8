// Softmax attention inside sets of rows.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace perception3d {

// Rows (num_rows, heads, width): number d of head h of row r lies at
// data[r * row_stride + h * head_stride + d].
template <typename Scalar>
struct HeadRows {
  const Scalar* data;
  int64_t row_stride, head_stride;

  const Scalar* at(int64_t row, int64_t head) const {
    return data + row * row_stride + head * head_stride;
  }
};

// Set s holds the rows order[offsets[s]..offsets[s + 1]); every row is in one set.
struct RowSets {
  const int64_t* order;
  const int64_t* offsets;
  int64_t count;
};

template <typename Scalar>
struct AttentionRows {
  HeadRows<Scalar> query, key, value;
  int64_t heads, width;
};

// result (num_rows, heads, width) = softmax(query . key / sqrt(width)) value over the set of each
// row.  log_sum (num_rows, heads), unless null: base-2 logarithm of the sum of
// exp(query . key / sqrt(width)).
template <typename Scalar>
void set_attention(const AttentionRows<Scalar>& rows, const RowSets& sets, Scalar* result,
                   Compute<Scalar>* log_sum, int threads);

// Gradients (num_rows, heads, width) of query, key and value; grad is that of the result.  Every
// sum has a fixed order.
template <typename Scalar>
struct AttentionGradients {
  Scalar *query, *key, *value;
};

template <typename Scalar>
void set_attention_backward(const HeadRows<Scalar>& grad, const AttentionRows<Scalar>& rows,
                            const HeadRows<Scalar>& result, const Compute<Scalar>* log_sum,
                            const RowSets& sets, const AttentionGradients<Scalar>& gradients,
                            int threads);

}  // namespace perception3d
