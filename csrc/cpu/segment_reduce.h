// Sums, means and maxima of rows that share a segment, and their gradients.
#pragma once

#include <cstdint>

namespace perception3d {

// Segment s holds the rows order[offsets[s]] .. order[offsets[s + 1] - 1], each row at most once.
struct Segments {
  const int64_t* order;
  const int64_t* offsets;  // (count + 1)
  int64_t count;
};

// In all of them values are (num_rows, columns) and Scalar is float, double, BFloat16 or
// Float16; 16-bit numbers are rounded once, at the end.

// sum (segments, columns), divided by the number of rows if `mean`; 0 for empty segments.
template <typename Scalar>
void segment_sum(const Scalar* values, const Segments& segments, int64_t columns, bool mean,
                 Scalar* sum, int threads);

// grad_values (num_rows, columns): gradient of each row's segment, divided by the segment's number
// of rows if `mean`; 0 for rows in no segment.
template <typename Scalar>
void segment_sum_backward(const Scalar* grad, const Segments& segments, int64_t num_rows,
                          int64_t columns, bool mean, Scalar* grad_values, int threads);

// maximum (segments, columns), 0 for empty segments.  row_of_maximum, unless null: the first row,
// in the order of the segment, that has it; -1 for empty segments.  NaN counts as greater than all.
template <typename Scalar>
void segment_max(const Scalar* values, const Segments& segments, int64_t columns, Scalar* maximum,
                 int32_t* row_of_maximum, int threads);

// grad_values (num_rows, columns): the gradient where the row is the segment's maximum, else 0.
template <typename Scalar>
void segment_max_backward(const Scalar* grad, const int32_t* row_of_maximum, int64_t num_segments,
                          int64_t num_rows, int64_t columns, Scalar* grad_values, int threads);

}  // namespace perception3d
