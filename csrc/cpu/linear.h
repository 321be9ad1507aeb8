// Linear maps of rows.
#pragma once

#include <cstdint>

namespace perception3d {

// Row r is data[r * step .. r * step + columns - 1].
template <typename Number>
struct RowMatrix {
  const Number* data;
  int64_t rows, columns, step;
};

// (out, in) anywhere in memory: element (o, i) is data[o * out_step + i * in_step].
template <typename Number>
struct LinearWeight {
  const Number* data;
  int64_t out, in, out_step, in_step;
};

enum class Activation { kNone, kRelu, kGelu };

// rows -> activation(rows weight^T + bias); bias may be null.
template <typename Number>
struct LinearMap {
  LinearWeight<Number> weight;
  const Number* bias;
  Activation activation;
};

// result (rows, out), contiguous.  A row of the result depends on its own row only, bit for bit.
template <typename Number>
void linear(const RowMatrix<Number>& rows, const LinearMap<Number>& map, Number* result,
            int threads);

// grad_weight (grad.columns, rows.columns), contiguous: grad^T rows; grad_bias (grad.columns) or
// null: sums of grad.  The same on any number of threads.
template <typename Number>
void linear_weight_gradient(const RowMatrix<Number>& grad, const RowMatrix<Number>& rows,
                            Number* grad_weight, Number* grad_bias, int threads);

}  // namespace perception3d
