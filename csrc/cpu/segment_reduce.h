// Sums, means and maxima of rows that share a segment, and their gradients.
#pragma once

#include <cstdint>

namespace perception3d {

// In all of them segment s holds the rows order[offsets[s]] .. order[offsets[s + 1] - 1] of values
// (num_rows, columns).  Scalar is float or double.

// sum (num_segments, columns), divided by the number of rows if `mean`; 0 for empty segments.
template <typename Scalar>
void segment_sum(const Scalar* values, const int64_t* order, const int64_t* offsets,
                 int64_t num_segments, int64_t columns, bool mean, Scalar* sum, int threads);

// grad_values (num_rows, columns): gradient of each row's segment, divided by the segment's number
// of rows if `mean`; 0 for rows in no segment.
template <typename Scalar>
void segment_sum_backward(const Scalar* grad, const int64_t* order, const int64_t* offsets,
                          int64_t num_segments, int64_t num_rows, int64_t columns, bool mean,
                          Scalar* grad_values, int threads);

// maximum (num_segments, columns), 0 for empty segments; row_of_maximum: the first row (in the
// order of the segment) that has it, -1 for empty segments.  NaN counts as greater than everything.
template <typename Scalar>
void segment_max(const Scalar* values, const int64_t* order, const int64_t* offsets,
                 int64_t num_segments, int64_t columns, Scalar* maximum, int64_t* row_of_maximum,
                 int threads);

// grad_values (num_rows, columns): the gradient where the row is the segment's maximum, else 0.
template <typename Scalar>
void segment_max_backward(const Scalar* grad, const int64_t* row_of_maximum, int64_t num_segments,
                          int64_t num_rows, int64_t columns, Scalar* grad_values, int threads);

}  // namespace perception3d
