// Whether a table of neighbours may be followed.
#pragma once

#include <cstdint>

namespace perception3d {

// The first of the rows begin .. end - 1 of neighbours (num_rows, taps) that holds anything but -1
// and 0 .. num_rows - 1; -1: none.
int64_t find_bad_row(const int32_t* neighbours, int64_t taps, int64_t begin, int64_t end,
                     int64_t num_rows);

}  // namespace perception3d
