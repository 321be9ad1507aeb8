// Groups rows by an integer key: the step that voxels, windows and segments share.
//
// Rows are sorted by key, stably; a group is a run of equal keys.  The work does not depend on how
// rows are spread over groups: a million rows of one key cost what a million keys cost.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "cuda/device_sort.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

constexpr int kGroupThreads = 256;

inline int64_t blocks_for(int64_t items) { return (items + kGroupThreads - 1) / kGroupThreads; }

// The item of this thread in a launch of blocks_for(items).
__device__ __forceinline__ int64_t item_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * kGroupThreads + threadIdx.x;
}

template <typename Key>
__device__ __forceinline__ bool starts_group(const RowGroups<Key>& groups, int64_t place) {
  const Key key = groups.sorted_keys[place];
  return key != groups.dropped && (place == 0 || key != groups.sorted_keys[place - 1]);
}

// groups_before: 1 for places that start a group, to be summed up.
template <typename Key>
__global__ void __launch_bounds__(kGroupThreads) mark_groups(RowGroups<Key> groups) {
  const int64_t place = item_of_thread();
  if (place >= groups.num_rows) return;
  groups.groups_before[place] = starts_group(groups, place);
  const bool kept = groups.sorted_keys[place] != groups.dropped;
  const bool last = place + 1 == groups.num_rows;
  if (kept && (last || groups.sorted_keys[place + 1] == groups.dropped)) {
    groups.totals()[1] = place + 1;
  }
  if (!kept && place == 0) groups.totals()[1] = 0;
  if (last) groups.totals()[0] = 0;
}

// Sorts groups.keys and groups.rows, which a kernel has filled.
template <typename Key>
Status sort_keys(const RowGroups<Key>& groups, Stream stream) {
  return device_sort_pairs(groups.keys, groups.sorted_keys, groups.rows, groups.sorted_rows,
                           groups.num_rows, bits_below(static_cast<int64_t>(groups.dropped) + 1),
                           groups.scratch, groups.scratch_bytes, stream);
}

// Sorts and counts: then totals() holds the number of groups and the number of rows that were not
// dropped.
template <typename Key>
Status group_rows(const RowGroups<Key>& groups, Stream stream) {
  if (groups.num_rows == 0) return fill_bytes(groups.totals(), 0, 2 * sizeof(int64_t), stream);
  Status status = sort_keys(groups, stream);
  if (status != nullptr) return status;
  status = launch(mark_groups<Key>, blocks_for(groups.num_rows), kGroupThreads, 0, stream, groups);
  if (status != nullptr) return status;
  return device_exclusive_sum(groups.groups_before, groups.groups_before, groups.num_rows + 1,
                              groups.scratch, groups.scratch_bytes, stream);
}

// Number of the group that holds a place with a key.
template <typename Key>
__device__ __forceinline__ int64_t group_of_place(const RowGroups<Key>& groups, int64_t place) {
  return groups.groups_before[place] + starts_group(groups, place) - 1;
}

// order (kept), offsets (groups + 1), group_of_row (num_rows; -1: dropped).  Calls emit(group, key)
// once for each group.
template <typename Key, typename Emit>
__global__ void __launch_bounds__(kGroupThreads)
    write_groups(RowGroups<Key> groups, Emit emit, int64_t* order, int64_t* offsets,
                 int64_t* group_of_row) {
  const int64_t place = item_of_thread();
  if (place >= groups.num_rows) return;
  if (place == 0) offsets[groups.totals()[0]] = groups.totals()[1];
  const int64_t row = groups.sorted_rows[place];
  const Key key = groups.sorted_keys[place];
  if (key == groups.dropped) {
    group_of_row[row] = -1;
    return;
  }
  const int64_t group = group_of_place(groups, place);
  order[place] = row;
  group_of_row[row] = group;
  if (!starts_group(groups, place)) return;
  offsets[group] = place;
  emit(group, key);
}

template <typename Key, typename Emit>
Status launch_write_groups(const RowGroups<Key>& groups, const Emit& emit, int64_t* order,
                           int64_t* offsets, int64_t* group_of_row, Stream stream) {
  if (groups.num_rows == 0) return fill_bytes(offsets, 0, sizeof(int64_t), stream);
  return launch(write_groups<Key, Emit>, blocks_for(groups.num_rows), kGroupThreads, 0, stream,
                groups, emit, order, offsets, group_of_row);
}

}  // namespace cuda
}  // namespace perception3d
