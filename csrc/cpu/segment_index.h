// Stable counting sort of rows by segment number.
#pragma once

#include <cstdint>

namespace perception3d {

// Fills offsets (num_segments + 1): how many rows lie in segments before each
// one; ids < 0 count nowhere.  Returns the first row whose id is >=
// num_segments, or -1 when all are in order.
int64_t count_segments(const int64_t *segment_of_row, int64_t num_rows, int64_t num_segments,
                       int64_t *offsets, int threads);

// Fills order (offsets[num_segments]) with the rows sorted by segment, rows of
// one segment in ascending order.
void sort_by_segment(const int64_t *segment_of_row, int64_t num_rows, int64_t num_segments,
                     const int64_t *offsets, int64_t *order, int threads);

}  // namespace perception3d
