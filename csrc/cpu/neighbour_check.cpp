#include "cpu/neighbour_check.h"

#include "common/parallel.h"

namespace perception3d {
namespace {

P3D_CLONES bool is_bad(const int32_t* neighbours, int64_t count, int32_t num_rows) {
  int32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) bad |= (neighbours[i] < -1) | (neighbours[i] >= num_rows);
  return bad != 0;
}

}  // namespace

int64_t find_bad_row(const int32_t* neighbours, int64_t taps, int64_t begin, int64_t end,
                     int64_t num_rows) {
  const int32_t limit = static_cast<int32_t>(num_rows);
  if (!is_bad(neighbours + begin * taps, (end - begin) * taps, limit)) return -1;
  int64_t row = begin;
  while (!is_bad(neighbours + row * taps, taps, limit)) ++row;
  return row;
}

}  // namespace perception3d
