// DSVT's sets: every window cut into slots of equal number, in two sort orders.
#pragma once

#include <cstdint>

namespace perception3d {

// Fills first_set (num_windows + 1): number of sets before each window.
void count_sets(const int64_t* offsets, int64_t num_windows, int64_t set_size, int64_t* first_set);

// cell_in_window (num_voxels, 3) z, y, x; order (num_voxels) and offsets (num_windows + 1) group
// the voxels by window.  With sets = first_set[num_windows] and index 0 = y-major, 1 = x-major it
// fills voxel_of_slot (2, sets, set_size), repeated (2, sets, set_size), slot_of_voxel (2,
// num_voxels).
void fill_sets(const int32_t* cell_in_window, const int64_t* order, const int64_t* offsets,
               const int64_t* first_set, int64_t num_voxels, int64_t num_windows, int64_t set_size,
               int64_t* voxel_of_slot, bool* repeated, int64_t* slot_of_voxel, int threads);

}  // namespace perception3d
