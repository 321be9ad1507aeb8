// What offsets and orders on the CPU must hold before a kernel follows them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/check.h"

namespace perception3d {

// offsets (lists + 1): where each list begins and ends, up to `rows`.
inline void check_offsets(const char* op, const int64_t* offsets, int64_t lists, int64_t rows) {
  STD_TORCH_CHECK(offsets[0] == 0 && offsets[lists] == rows, op, ": offsets must run from 0 to ",
                  rows, ", got ", offsets[0], " to ", offsets[lists]);
  for (int64_t i = 0; i < lists; ++i) {
    STD_TORCH_CHECK(offsets[i] <= offsets[i + 1], op, ": offsets must ascend, got ", offsets[i],
                    " before ", offsets[i + 1]);
  }
}

// order (rows): every row once.
inline void check_permutation(const char* op, const int64_t* order, int64_t rows) {
  std::vector<bool> seen(rows);
  for (int64_t i = 0; i < rows; ++i) {
    const bool inside = order[i] >= 0 && order[i] < rows;
    STD_TORCH_CHECK(inside && !seen[order[i]], op, ": order must be a permutation of 0..", rows - 1,
                    ", got ", order[i], " in row ", i);
    seen[order[i]] = true;
  }
}

// index (count): each a row of `rows` rows.
inline void check_rows(const char* op, const char* name, const int64_t* index, int64_t count,
                       int64_t rows) {
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(index[i] >= 0 && index[i] < rows, op, ": ", name, " must lie in 0..", rows - 1,
                    ", got ", index[i], " in row ", i);
  }
}

}  // namespace perception3d
