// What the segment reductions share: how segments are dealt out to threads.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "cpu/segment_reduce.h"

namespace perception3d {

constexpr int64_t kNumbersPerWorker = 131072;
constexpr int64_t kSegmentsPerTurn = 64;
// Longer segments are cut into pieces of this many rows, whose results are joined in order: one
// huge segment keeps all threads busy, and the result does not depend on their number.
constexpr int64_t kPieceRows = 4096;
// Rows are fetched so many bytes ahead, but no more than so many rows: they lie anywhere in memory,
// so no hardware foresees them.
constexpr int64_t kBytesAhead = 2048;
constexpr int64_t kMostRowsAhead = 32;
// Wide rows are walked through by groups of columns; so many rows at a time stay in the first cache
// from one group to the next.
constexpr int64_t kRowsPerWalk = 32;
// Columns handled at once, as one vector.
constexpr int64_t kLanes = 8;

inline int worker_count_for(const Segments& segments, int64_t columns, int threads) {
  const int64_t rows = segments.offsets[segments.count];
  return worker_count(threads, (rows + segments.count) * columns, kNumbersPerWorker);
}

// Calls body(begin, end) for ranges of segments, idle threads taking the next; body has to pass
// over segments of more than kPieceRows rows.
template <typename Body>
void for_each_range(const Segments& segments, int workers, const Body& body) {
  const int64_t turns = (segments.count + kSegmentsPerTurn - 1) / kSegmentsPerTurn;
  for_each_dynamic(workers, turns, 1, [&](int64_t turn) {
    body(turn * kSegmentsPerTurn, std::min(segments.count, (turn + 1) * kSegmentsPerTurn));
  });
}

// How many rows of so many bytes are fetched ahead.
inline int64_t rows_ahead(int64_t row_bytes) {
  return std::clamp<int64_t>(kBytesAhead / std::max<int64_t>(row_bytes, 1), 2, kMostRowsAhead);
}

// Fetches all cache lines of a row.
P3D_INLINE void fetch_row(const void* row, int64_t bytes) {
  const char* first = static_cast<const char*>(row);
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(first + byte);
  __builtin_prefetch(first + bytes - 1);
}

// Segments of more than kPieceRows rows.
inline std::vector<int64_t> long_segments(const Segments& segments) {
  std::vector<int64_t> found;
  for (int64_t segment = 0; segment < segments.count; ++segment) {
    const int64_t rows = segments.offsets[segment + 1] - segments.offsets[segment];
    if (rows > kPieceRows) found.push_back(segment);
  }
  return found;
}

inline int64_t pieces_of(int64_t rows) { return (rows + kPieceRows - 1) / kPieceRows; }

template <typename Scalar>
void clear(Scalar* numbers, int64_t count, int threads) {
  if (count == 0) return;  // numbers may be null then
  const int workers = worker_count(threads, count, kNumbersPerWorker);
  for_each_block(workers, count, [&](int, int64_t begin, int64_t end) {
    std::memset(numbers + begin, 0, sizeof(Scalar) * (end - begin));
  });
}

}  // namespace perception3d
