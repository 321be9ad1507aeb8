// Stable sort of rows by segment number, on CUDA.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

// Sorts the rows by segment.  segment_of_row (num_rows): ids below num_segments; rows with another
// id are left out.  Fills offsets (num_segments + 1), whose last number says how many rows are
// kept.
template <typename Key>
Status sort_by_segment(const int64_t* segment_of_row, int64_t num_segments,
                       const RowGroups<Key>& groups, int64_t* offsets, Stream stream);

// After sort_by_segment: order (kept).
template <typename Key>
Status write_order(const RowGroups<Key>& groups, int64_t kept, int64_t* order, Stream stream);

}  // namespace cuda
}  // namespace perception3d
