#include "cpu/segment_index.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kRowsPerWorker = 32768;

// Each worker keeps a counter per segment, so more workers only pay while
// counters are few.
int worker_count_for(int64_t num_rows, int64_t num_segments, int threads) {
  return worker_count(threads, num_rows, std::max(kRowsPerWorker, num_segments));
}

// counts[worker * num_segments + segment]: rows of the worker's block in the
// segment.
int64_t count_blocks(const int64_t *segment_of_row, int64_t num_rows, int64_t num_segments,
                     int workers, std::vector<int64_t> &counts) {
  std::vector<int64_t> bad_row(workers, -1);
  for_each_block(workers, num_rows, [&](int worker, int64_t begin, int64_t end) {
    int64_t *count = counts.data() + worker * num_segments;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t segment = segment_of_row[row];
      if (segment < 0) continue;
      if (segment >= num_segments) {
        bad_row[worker] = row;
        return;
      }
      ++count[segment];
    }
  });
  for (const int64_t row : bad_row) {
    if (row >= 0) return row;
  }
  return -1;
}

}  // namespace

int64_t count_segments(const int64_t *segment_of_row, int64_t num_rows, int64_t num_segments,
                       int64_t *offsets, int threads) {
  const int workers = worker_count_for(num_rows, num_segments, threads);
  std::vector<int64_t> counts(workers * num_segments);
  const int64_t bad_row = count_blocks(segment_of_row, num_rows, num_segments, workers, counts);
  if (bad_row >= 0) return bad_row;
  offsets[0] = 0;
  for (int64_t segment = 0; segment < num_segments; ++segment) {
    int64_t total = offsets[segment];
    for (int worker = 0; worker < workers; ++worker) {
      total += counts[worker * num_segments + segment];
    }
    offsets[segment + 1] = total;
  }
  return -1;
}

void sort_by_segment(const int64_t *segment_of_row, int64_t num_rows, int64_t num_segments,
                     const int64_t *offsets, int64_t *order, int threads) {
  const int workers = worker_count_for(num_rows, num_segments, threads);
  std::vector<int64_t> next(workers * num_segments);
  if (workers > 1) count_blocks(segment_of_row, num_rows, num_segments, workers, next);
  for (int64_t segment = 0; segment < num_segments; ++segment) {
    int64_t slot = offsets[segment];
    for (int worker = 0; worker < workers; ++worker) {
      const int64_t count = next[worker * num_segments + segment];
      next[worker * num_segments + segment] = slot;
      slot += count;
    }
  }
  for_each_block(workers, num_rows, [&](int worker, int64_t begin, int64_t end) {
    int64_t *slot = next.data() + worker * num_segments;
    for (int64_t row = begin; row < end; ++row) {
      if (segment_of_row[row] >= 0) order[slot[segment_of_row[row]]++] = row;
    }
  });
}

}  // namespace perception3d
