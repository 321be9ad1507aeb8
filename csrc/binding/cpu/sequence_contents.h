// What a layout of sequences on the CPU must hold before a kernel follows it.
#pragma once

#include <vector>

#include "binding/cpu/row_lists.h"
#include "common/check.h"
#include "common/scan_layout.h"

namespace perception3d {

// Offsets ascend from 0 to the number of rows, and order names every row once: then every row of a
// result is written.
inline void check_contents(const char* op, const SequenceLayout& layout) {
  const int64_t rows = layout.length;
  check_offsets(op, layout.offsets, layout.sequences, rows);
  if (layout.order == nullptr) return;
  std::vector<bool> seen(rows);
  for (int64_t place = 0; place < rows; ++place) {
    const int64_t row = layout.order[place];
    STD_TORCH_CHECK(row >= 0 && row < rows, op, ": order must be in 0..", rows - 1, ", got ", row,
                    " in row ", place);
    STD_TORCH_CHECK(!seen[row], op, ": order must hold every row once, got ", row, " again in row ",
                    place);
    seen[row] = true;
  }
}

}  // namespace perception3d
