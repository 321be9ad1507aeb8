// Groups rows by an integer key: the step that voxels and windows share.
#pragma once

#include <cstdint>
#include <memory>

namespace perception3d {

// Rows with the same key form a group; groups are numbered by ascending key, rows inside a group
// keep their order.
class RowGroups {
 public:
  virtual ~RowGroups() = default;

  int64_t num_groups() const { return num_groups_; }
  int64_t num_kept() const { return num_kept_; }

  // Replaces the keys that the groups were made from by the number of each row's group (-1 stays),
  // and fills three tables.  To be called once.
  // order (num_kept): rows sorted by group.
  // offsets (num_groups + 1): group g holds order[offsets[g]] .. order[offsets[g + 1] - 1].
  // keys (num_groups): key of each group.
  virtual void write(int64_t* order, int64_t* offsets, int64_t* keys) = 0;

 protected:
  int64_t num_groups_ = 0;
  int64_t num_kept_ = 0;
};

// key_of_row (num_rows): keys in [0, key_bound), or -1 for rows to leave out; the array
// must outlive the result, which writes to it.  num_rows < 2^31.  Two ways with equal results: a
// bitmap of all keys while they are few for the number of rows, a radix sort of the rows otherwise.
std::unique_ptr<RowGroups> group_rows(int64_t* key_of_row, int64_t num_rows, int64_t key_bound,
                                      int threads);

std::unique_ptr<RowGroups> group_rows_by_marking(int64_t* key_of_row, int64_t num_rows,
                                                 int64_t key_bound, int threads);

std::unique_ptr<RowGroups> group_rows_by_sorting(int64_t* key_of_row, int64_t num_rows,
                                                 int64_t key_bound, int threads);

}  // namespace perception3d
