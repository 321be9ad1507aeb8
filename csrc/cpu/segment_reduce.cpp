#include "cpu/segment_reduce.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kNumbersPerWorker = 32768;
constexpr int64_t kSegmentsPerTurn = 64;
// Longer segments are cut into pieces of this many rows, whose results are joined in order: one
// huge segment keeps all threads busy, and the result does not depend on their number.
constexpr int64_t kPieceRows = 4096;

// Adds rows to total (columns).  Sums are kept in double: they are then exact to float32 rounding
// in any order of rows.
template <int kColumns, typename Scalar>
P3D_INLINE void add_rows(const Scalar* values, const int64_t* rows, int64_t count, int64_t columns,
                         double* total) {
  if (kColumns > 0) columns = kColumns;
  double local[kColumns > 0 ? kColumns : 1] = {};
  double* sum = kColumns > 0 ? local : total;
  for (int64_t i = 0; i < count; ++i) {
    const Scalar* value = values + rows[i] * columns;
    for (int64_t c = 0; c < columns; ++c) sum[c] += value[c];
  }
  if (kColumns > 0) {
    for (int64_t c = 0; c < columns; ++c) total[c] += local[c];
  }
}

template <typename Scalar>
P3D_INLINE void add_rows_any(const Scalar* values, const int64_t* rows, int64_t count,
                             int64_t columns, double* total) {
  switch (columns) {
    case 1:
      return add_rows<1>(values, rows, count, columns, total);
    case 2:
      return add_rows<2>(values, rows, count, columns, total);
    case 3:
      return add_rows<3>(values, rows, count, columns, total);
    case 4:
      return add_rows<4>(values, rows, count, columns, total);
    case 5:
      return add_rows<5>(values, rows, count, columns, total);
    case 6:
      return add_rows<6>(values, rows, count, columns, total);
    default:
      return add_rows<0>(values, rows, count, columns, total);
  }
}

// Raises best (columns) to the maximum of rows first .. last - 1 of the segment and notes their
// positions in place.
template <typename Scalar>
P3D_INLINE void raise_rows(const Scalar* values, const int64_t* rows, int64_t first, int64_t last,
                           int64_t columns, Scalar* best, int32_t* place) {
  for (int64_t i = first; i < last; ++i) {
    const Scalar* value = values + rows[i] * columns;
    for (int64_t c = 0; c < columns; ++c) {
      const Scalar v = value[c], b = best[c];
      const bool take = (v > b) | ((v != v) & (b == b));
      best[c] = take ? v : b;
      place[c] = take ? static_cast<int32_t>(i) : place[c];
    }
  }
}

// One cloned function per job and scalar type.
P3D_CLONES void add(const float* values, const int64_t* rows, int64_t count, int64_t columns,
                    double* total) {
  add_rows_any(values, rows, count, columns, total);
}
P3D_CLONES void add(const double* values, const int64_t* rows, int64_t count, int64_t columns,
                    double* total) {
  add_rows_any(values, rows, count, columns, total);
}
P3D_CLONES void raise(const float* values, const int64_t* rows, int64_t first, int64_t last,
                      int64_t columns, float* best, int32_t* place) {
  raise_rows(values, rows, first, last, columns, best, place);
}
P3D_CLONES void raise(const double* values, const int64_t* rows, int64_t first, int64_t last,
                      int64_t columns, double* best, int32_t* place) {
  raise_rows(values, rows, first, last, columns, best, place);
}

int64_t pieces_of(int64_t rows) { return (rows + kPieceRows - 1) / kPieceRows; }

std::vector<int64_t> long_segments(const int64_t* offsets, int64_t num_segments) {
  std::vector<int64_t> found;
  for (int64_t segment = 0; segment < num_segments; ++segment) {
    if (offsets[segment + 1] - offsets[segment] > kPieceRows) found.push_back(segment);
  }
  return found;
}

int worker_count_for(const int64_t* offsets, int64_t num_segments, int64_t columns, int threads) {
  return worker_count(threads, (offsets[num_segments] + num_segments) * columns, kNumbersPerWorker);
}

// Calls body(segment, first place in order, number of rows) for all segments of at most kPieceRows
// rows, in parallel.
template <typename Body>
void for_each_short_segment(const int64_t* offsets, int64_t num_segments, int workers,
                            const Body& body) {
  const int64_t turns = (num_segments + kSegmentsPerTurn - 1) / kSegmentsPerTurn;
  for_each_dynamic(workers, turns, 1, [&](int64_t turn) {
    const int64_t end = std::min(num_segments, (turn + 1) * kSegmentsPerTurn);
    for (int64_t segment = turn * kSegmentsPerTurn; segment < end; ++segment) {
      const int64_t rows = offsets[segment + 1] - offsets[segment];
      if (rows <= kPieceRows) body(segment, offsets[segment], rows);
    }
  });
}

template <typename Scalar>
void clear(Scalar* numbers, int64_t count, int threads) {
  const int workers = worker_count(threads, count, kNumbersPerWorker);
  for_each_block(workers, count, [&](int, int64_t begin, int64_t end) {
    std::memset(numbers + begin, 0, sizeof(Scalar) * (end - begin));
  });
}

template <typename Scalar>
void write_sum(const double* total, int64_t rows, int64_t columns, bool mean, Scalar* sum) {
  const double divisor = mean && rows > 0 ? static_cast<double>(rows) : 1.0;
  for (int64_t c = 0; c < columns; ++c) sum[c] = static_cast<Scalar>(total[c] / divisor);
}

}  // namespace

template <typename Scalar>
void segment_sum(const Scalar* values, const int64_t* order, const int64_t* offsets,
                 int64_t num_segments, int64_t columns, bool mean, Scalar* sum, int threads) {
  const int workers = worker_count_for(offsets, num_segments, columns, threads);
  for_each_short_segment(offsets, num_segments, workers,
                         [&](int64_t segment, int64_t first, int64_t rows) {
                           static thread_local std::vector<double> total;
                           total.assign(columns, 0.0);
                           add(values, order + first, rows, columns, total.data());
                           write_sum(total.data(), rows, columns, mean, sum + segment * columns);
                         });
  for (const int64_t segment : long_segments(offsets, num_segments)) {
    const int64_t rows = offsets[segment + 1] - offsets[segment];
    const int64_t pieces = pieces_of(rows);
    std::vector<double> totals(pieces * columns);
    for_each_dynamic(workers, pieces, 1, [&](int64_t piece) {
      const int64_t count = std::min(kPieceRows, rows - piece * kPieceRows);
      add(values, order + offsets[segment] + piece * kPieceRows, count, columns,
          totals.data() + piece * columns);
    });
    for (int64_t piece = 1; piece < pieces; ++piece) {
      for (int64_t c = 0; c < columns; ++c) totals[c] += totals[piece * columns + c];
    }
    write_sum(totals.data(), rows, columns, mean, sum + segment * columns);
  }
}

template <typename Scalar>
void segment_sum_backward(const Scalar* grad, const int64_t* order, const int64_t* offsets,
                          int64_t num_segments, int64_t num_rows, int64_t columns, bool mean,
                          Scalar* grad_values, int threads) {
  if (offsets[num_segments] < num_rows) clear(grad_values, num_rows * columns, threads);
  const int workers = worker_count_for(offsets, num_segments, columns, threads);
  // Cut by places in order, not by segments: a huge segment is then no special case.
  for_each_block(workers, offsets[num_segments], [&](int, int64_t begin, int64_t end) {
    int64_t segment = std::upper_bound(offsets, offsets + num_segments + 1, begin) - offsets - 1;
    for (int64_t i = begin; i < end; ++i) {
      while (i >= offsets[segment + 1]) ++segment;
      const int64_t rows = offsets[segment + 1] - offsets[segment];
      const Scalar divisor = mean ? static_cast<Scalar>(rows) : Scalar{1};
      for (int64_t c = 0; c < columns; ++c) {
        grad_values[order[i] * columns + c] = grad[segment * columns + c] / divisor;
      }
    }
  });
}

template <typename Scalar>
void segment_max(const Scalar* values, const int64_t* order, const int64_t* offsets,
                 int64_t num_segments, int64_t columns, Scalar* maximum, int64_t* row_of_maximum,
                 int threads) {
  const int workers = worker_count_for(offsets, num_segments, columns, threads);
  for_each_short_segment(offsets, num_segments, workers,
                         [&](int64_t segment, int64_t first, int64_t rows) {
                           static thread_local std::vector<int32_t> place;
                           Scalar* best = maximum + segment * columns;
                           int64_t* row = row_of_maximum + segment * columns;
                           if (rows == 0) {
                             std::fill(best, best + columns, Scalar{0});
                             std::fill(row, row + columns, -1);
                             return;
                           }
                           place.assign(columns, 0);
                           std::copy_n(values + order[first] * columns, columns, best);
                           raise(values, order + first, 1, rows, columns, best, place.data());
                           for (int64_t c = 0; c < columns; ++c) row[c] = order[first + place[c]];
                         });
  for (const int64_t segment : long_segments(offsets, num_segments)) {
    const int64_t first = offsets[segment];
    const int64_t rows = offsets[segment + 1] - first;
    const int64_t pieces = pieces_of(rows);
    std::vector<Scalar> best(pieces * columns);
    std::vector<int32_t> place(pieces * columns);
    for_each_dynamic(workers, pieces, 1, [&](int64_t piece) {
      const int64_t begin = piece * kPieceRows;
      std::copy_n(values + order[first + begin] * columns, columns, &best[piece * columns]);
      std::fill_n(&place[piece * columns], columns, static_cast<int32_t>(begin));
      raise(values, order + first, begin + 1, std::min(rows, begin + kPieceRows), columns,
            &best[piece * columns], &place[piece * columns]);
    });
    for (int64_t c = 0; c < columns; ++c) {
      int64_t winner = c;
      for (int64_t other = columns + c; other < pieces * columns; other += columns) {
        const Scalar v = best[other], b = best[winner];
        if (v > b || (v != v && b == b)) winner = other;
      }
      maximum[segment * columns + c] = best[winner];
      row_of_maximum[segment * columns + c] = order[first + place[winner]];
    }
  }
}

template <typename Scalar>
void segment_max_backward(const Scalar* grad, const int64_t* row_of_maximum, int64_t num_segments,
                          int64_t num_rows, int64_t columns, Scalar* grad_values, int threads) {
  clear(grad_values, num_rows * columns, threads);
  const int workers = worker_count(threads, num_segments * columns, kNumbersPerWorker);
  for_each_block(workers, num_segments, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin * columns; i < end * columns; ++i) {
      if (row_of_maximum[i] >= 0) grad_values[row_of_maximum[i] * columns + i % columns] = grad[i];
    }
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                    \
  template void segment_sum(const Scalar*, const int64_t*, const int64_t*, int64_t, int64_t, bool, \
                            Scalar*, int);                                                         \
  template void segment_sum_backward(const Scalar*, const int64_t*, const int64_t*, int64_t,       \
                                     int64_t, int64_t, bool, Scalar*, int);                        \
  template void segment_max(const Scalar*, const int64_t*, const int64_t*, int64_t, int64_t,       \
                            Scalar*, int64_t*, int);                                               \
  template void segment_max_backward(const Scalar*, const int64_t*, int64_t, int64_t, int64_t,     \
                                     Scalar*, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace perception3d
