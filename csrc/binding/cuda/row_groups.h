// Memory for grouping rows by key, from the shells.
#pragma once

#include <algorithm>
#include <cstdint>

#include "binding/cuda/device.h"
#include "cuda/device_sort.h"
#include "cuda/row_groups.h"

namespace perception3d {

template <typename Key>
cuda::RowGroups<Key> make_row_groups(DeviceCall& call, int64_t num_rows, int64_t key_bound) {
  cuda::RowGroups<Key> groups{};
  groups.num_rows = num_rows;
  groups.dropped = static_cast<Key>(key_bound);
  groups.keys = call.workspace<Key>(num_rows);
  groups.rows = call.workspace<int32_t>(num_rows);
  groups.sorted_keys = call.workspace<Key>(num_rows);
  groups.sorted_rows = call.workspace<int32_t>(num_rows);
  groups.groups_before = call.workspace<int64_t>(num_rows + 2);
  groups.scratch_bytes =
      std::max(cuda::sort_workspace_bytes<Key>(num_rows), cuda::sum_workspace_bytes(num_rows + 1));
  groups.scratch = call.workspace<unsigned char>(groups.scratch_bytes);
  return groups;
}

// Calls body with a null pointer of the smallest key type for keys up to key_bound.
template <typename Body>
void dispatch_key(int64_t key_bound, const Body& body) {
  if (key_bound <= UINT32_MAX) return body(static_cast<uint32_t*>(nullptr));
  body(static_cast<uint64_t*>(nullptr));
}

inline void check_row_count(const char* op, const char* name, int64_t rows) {
  STD_TORCH_CHECK(rows < INT32_MAX - 1, op, ": ", name, " must have fewer than 2^31 - 2 rows, got ",
                  rows);
}

}  // namespace perception3d
