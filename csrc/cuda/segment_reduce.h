// Sums, means and maxima of rows that share a segment, and their gradients, on CUDA.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace perception3d {
namespace cuda {

// Segment s holds the rows order[offsets[s]] .. order[offsets[s + 1] - 1], each row at most once.
struct Segments {
  const int64_t* order;    // (places)
  const int64_t* offsets;  // (count + 1)
  int64_t count;
  int64_t places;
  int64_t num_rows;  // below 2^31 - 1
};

// Scalar is float, double, BFloat16 or Float16; 16-bit types are summed in float.  Sums are made in
// an order that only the segment's length decides: equal on every run and every GPU.

// What `workspace` must hold for segment_sum and segment_max, bytes, 16-byte aligned.
template <typename Scalar>
int64_t segment_workspace_bytes(int64_t places, int64_t columns);

// sum (segments, columns), divided by the number of rows if `mean`; 0 for empty segments.
template <typename Scalar>
Status segment_sum(const Scalar* values, const Segments& segments, int64_t columns, bool mean,
                   Scalar* sum, void* workspace, Stream stream);

// grad_values (num_rows, columns): gradient of each row's segment, divided by the segment's number
// of rows if `mean`; 0 for rows in no segment.
template <typename Scalar>
Status segment_sum_backward(const Scalar* grad, const Segments& segments, int64_t columns,
                            bool mean, Scalar* grad_values, Stream stream);

// maximum (segments, columns), 0 for empty segments.  row_of_maximum, unless null: the first row,
// in the order of the segment, that has it; -1 for empty segments.  NaN counts as greater than all.
template <typename Scalar>
Status segment_max(const Scalar* values, const Segments& segments, int64_t columns, Scalar* maximum,
                   int32_t* row_of_maximum, void* workspace, Stream stream);

// grad_values (num_rows, columns): the gradient where the row is the segment's maximum, else 0.
template <typename Scalar>
Status segment_max_backward(const Scalar* grad, const int32_t* row_of_maximum, int64_t num_segments,
                            int64_t num_rows, int64_t columns, Scalar* grad_values, Stream stream);

}  // namespace cuda
}  // namespace perception3d
