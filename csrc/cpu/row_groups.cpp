#include "cpu/row_groups.h"

#include <algorithm>

namespace perception3d {
namespace {

// The bitmap may take this many words per row (16 bytes each); beyond, sorting is cheaper.
constexpr int64_t kWordsPerRow = 2;
constexpr int64_t kSmallBitmap = 4096;

}  // namespace

std::unique_ptr<RowGroups> group_rows(int64_t* key_of_row, int64_t num_rows, int64_t key_bound,
                                      int threads) {
  const int64_t words = key_bound / 64 + 1;
  const bool few_keys = words <= std::max(kSmallBitmap, kWordsPerRow * num_rows);
  return few_keys ? group_rows_by_marking(key_of_row, num_rows, key_bound, threads)
                  : group_rows_by_sorting(key_of_row, num_rows, key_bound, threads);
}

}  // namespace perception3d
