// DSVT's sets: every window cut into slots of equal number, in two sort orders.
#pragma once

#include <cstdint>

namespace perception3d {

// Fills first_set (num_windows + 1): number of sets before each window.
void count_sets(const int64_t* offsets, int64_t num_windows, int64_t set_size, int64_t* first_set);

// What fill_sets writes; index 0 of the leading 2 = y-major, 1 = x-major.
struct SetTables {
  int64_t* voxel_of_slot;  // (2, sets, set_size)
  bool* repeated;          // (2, sets, set_size)
  int64_t* slot_of_voxel;  // (2, num_voxels)
  int64_t* member;         // (2, num_voxels): the true members, set by set
  int64_t* set_offset;     // (sets + 1): set s holds member[set_offset[s]..set_offset[s + 1])
};

// cell_in_window (num_voxels, 3) z, y, x; order (num_voxels) and offsets (num_windows + 1) group
// the voxels by window; there are first_set[num_windows] sets.
void fill_sets(const int32_t* cell_in_window, const int64_t* order, const int64_t* offsets,
               const int64_t* first_set, int64_t num_voxels, int64_t num_windows, int64_t set_size,
               const SetTables& tables, int threads);

}  // namespace perception3d
