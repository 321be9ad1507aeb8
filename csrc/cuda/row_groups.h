// The memory in which rows are grouped by key.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace perception3d {
namespace cuda {

// Key is uint32_t or uint64_t; num_rows < 2^31.
template <typename Key>
struct RowGroups {
  int64_t num_rows;
  Key dropped;             // above all keys: the key of rows that are left out
  Key* keys;               // (num_rows) key of each row
  int32_t* rows;           // (num_rows) 0, 1, 2, ...
  Key* sorted_keys;        // (num_rows)
  int32_t* sorted_rows;    // (num_rows)
  int64_t* groups_before;  // (num_rows + 2) groups that start before each place; see totals()
  void* scratch;
  int64_t scratch_bytes;

#if defined(__CUDACC__)
  __host__ __device__
#endif
      // Number of groups, number of rows with a key.
      int64_t*
      totals() const {
    return groups_before + num_rows;
  }
};

}  // namespace cuda
}  // namespace perception3d
