// DSVT's sets on CUDA: every window cut into slots of equal number, in two sort orders.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

// cell_in_window (num_voxels, 3) z, y, x; order (num_voxels) a permutation, offsets (num_windows +
// 1): window w holds the voxels order[offsets[w]] .. order[offsets[w + 1] - 1].
struct WindowTable {
  const int32_t* cell_in_window;
  const int64_t* order;
  const int64_t* offsets;
  int64_t num_voxels;  // below 2^30
  int64_t num_windows;
};

// What the host must know before it can allocate and sort: the last numbers of `counts` below.
constexpr int kSetTotals = 7;  // sets, lowest cell z, y, x, highest cell z, y, x

// The cells of all windows: where they begin and how many there are, z, y, x.
struct CellBox {
  int64_t lowest[3], extent[3];

  // totals: kSetTotals numbers as count_sets leaves them.
  static CellBox from(const int64_t* totals);

  // A number above every sort key of both orders together, or -1 if 63 bits do not hold them.
  int64_t key_bound(int64_t num_windows) const;
};

// Fills counts (num_windows + kSetTotals): the number of sets before each window, then the totals.
Status count_sets(const WindowTable& table, int64_t set_size, int64_t* counts, void* scratch,
                  int64_t scratch_bytes, Stream stream);

// Sorts the places of every window, y-major and then x-major; groups has 2 * num_voxels rows and
// the bound of `box`.
template <typename Key>
Status sort_windows(const WindowTable& table, const CellBox& box, const RowGroups<Key>& groups,
                    Stream stream);

// What fill_sets writes; index 0 of the leading 2 = y-major, 1 = x-major.
struct SetTables {
  int64_t* voxel_of_slot;  // (2, sets, set_size)
  bool* repeated;          // (2, sets, set_size)
  int64_t* slot_of_voxel;  // (2, num_voxels)
  int64_t* member;         // (2, num_voxels): the true members, set by set
  int64_t* set_offset;     // (sets + 1): set s holds member[set_offset[s]..set_offset[s + 1]]
};

// sorted_places (2 * num_voxels): groups.sorted_rows after sort_windows; unused without sets.
Status fill_sets(const WindowTable& table, const int64_t* counts, int64_t sets, int64_t set_size,
                 const int32_t* sorted_places, const SetTables& tables, Stream stream);

}  // namespace cuda
}  // namespace perception3d
