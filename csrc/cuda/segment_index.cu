#include "cuda/row_groups.cuh"
#include "cuda/segment_index.h"

namespace perception3d {
namespace cuda {
namespace {

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    take_segments(const int64_t* segment_of_row, int64_t num_segments, RowGroups<Key> groups) {
  const int64_t row = item_of_thread();
  if (row >= groups.num_rows) return;
  const int64_t segment = segment_of_row[row];
  if (segment >= 0) check_index(segment, num_segments, "segment_index: segment_of_row");
  const bool keep = segment >= 0 && segment < num_segments;
  groups.keys[row] = keep ? static_cast<Key>(segment) : groups.dropped;
  groups.rows[row] = static_cast<int32_t>(row);
}

// offsets[s]: the first place whose segment is s or later.
template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    find_offsets(RowGroups<Key> groups, int64_t num_segments, int64_t* offsets) {
  const int64_t segment = item_of_thread();
  if (segment > num_segments) return;
  int64_t low = 0, high = groups.num_rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(groups.sorted_keys[middle]) < segment) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  offsets[segment] = low;
}

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    widen_rows(RowGroups<Key> groups, int64_t kept, int64_t* order) {
  const int64_t place = item_of_thread();
  if (place < kept) order[place] = groups.sorted_rows[place];
}

}  // namespace

template <typename Key>
Status sort_by_segment(const int64_t* segment_of_row, int64_t num_segments,
                       const RowGroups<Key>& groups, int64_t* offsets, Stream stream) {
  Status status = launch(take_segments<Key>, blocks_for(groups.num_rows), kGroupThreads, 0, stream,
                         segment_of_row, num_segments, groups);
  if (status != nullptr) return status;
  status = sort_keys(groups, stream);
  if (status != nullptr) return status;
  return launch(find_offsets<Key>, blocks_for(num_segments + 1), kGroupThreads, 0, stream, groups,
                num_segments, offsets);
}

template <typename Key>
Status write_order(const RowGroups<Key>& groups, int64_t kept, int64_t* order, Stream stream) {
  return launch(widen_rows<Key>, blocks_for(kept), kGroupThreads, 0, stream, groups, kept, order);
}

#define P3D_INSTANTIATE(Key)                                                                \
  template Status sort_by_segment(const int64_t*, int64_t, const RowGroups<Key>&, int64_t*, \
                                  Stream);                                                  \
  template Status write_order(const RowGroups<Key>&, int64_t, int64_t*, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
