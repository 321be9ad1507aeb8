#include "cpu/segment_loops.h"
#include "cpu/vectors.h"

namespace perception3d {
namespace {

using Doubles = Numbers<double, kLanes>;

// Rows of one piece: rows[0..count), and up to rows[ahead) may be looked at to fetch them early.
struct Rows {
  const int64_t* rows;
  int64_t count;
  int64_t ahead;
};

// total[c] += sum over the rows of values[row * columns + c], for kVectors * kLanes columns.  Sums
// are kept in double: they are then exact to float32 rounding, whatever the order of rows.
template <int kVectors, bool kFetch, typename Scalar>
P3D_INLINE void add_wide(const Scalar* values, const Rows& rows, int64_t columns, double* total) {
  const int64_t row_bytes = columns * static_cast<int64_t>(sizeof(Scalar));
  const int64_t early = rows_ahead(row_bytes);
  Doubles sum[kVectors] = {};
  for (int64_t i = 0; i < rows.count; ++i) {
    if (kFetch && i + early < rows.ahead) {
      fetch_row(values + rows.rows[i + early] * columns, row_bytes);
    }
    const Scalar* value = values + rows.rows[i] * columns;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Numbers<Compute<Scalar>, kLanes> lanes;
      load_vector<kLanes>(value + v * kLanes, lanes);
      sum[v] += __builtin_convertvector(lanes, Doubles);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    for (int64_t c = 0; c < kLanes; ++c) total[v * kLanes + c] += sum[v][c];
  }
}

template <int kColumns, typename Scalar>
P3D_INLINE void add_narrow(const Scalar* values, const Rows& rows, int64_t columns, double* total) {
  double sum[kColumns] = {};
  for (int64_t i = 0; i < rows.count; ++i) {
    const Scalar* value = values + rows.rows[i] * columns;
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[c] += load(value[c]);
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) total[c] += sum[c];
}

// The first columns fetch rows of which the others find all in the cache.
template <typename Scalar>
P3D_INLINE void add_few_rows(const Scalar* values, const Rows& rows, int64_t columns,
                             double* total) {
  int64_t c = 0;
  if (columns >= 8 * kLanes) {
    add_wide<8, true>(values, rows, columns, total);
    c = 8 * kLanes;
  } else if (columns >= kLanes) {
    add_wide<1, true>(values, rows, columns, total);
    c = kLanes;
  }
  for (; c + 8 * kLanes <= columns; c += 8 * kLanes) {
    add_wide<8, false>(values + c, rows, columns, total + c);
  }
  for (; c + kLanes <= columns; c += kLanes) {
    add_wide<1, false>(values + c, rows, columns, total + c);
  }
  switch (columns - c) {
    case 1:
      return add_narrow<1>(values + c, rows, columns, total + c);
    case 2:
      return add_narrow<2>(values + c, rows, columns, total + c);
    case 3:
      return add_narrow<3>(values + c, rows, columns, total + c);
    case 4:
      return add_narrow<4>(values + c, rows, columns, total + c);
    case 5:
      return add_narrow<5>(values + c, rows, columns, total + c);
    case 6:
      return add_narrow<6>(values + c, rows, columns, total + c);
    case 7:
      return add_narrow<7>(values + c, rows, columns, total + c);
  }
}

template <typename Scalar>
P3D_INLINE void add_rows(const Scalar* values, const Rows& rows, int64_t columns, double* total) {
  for (int64_t i = 0; i < rows.count; i += kRowsPerWalk) {
    const Rows few{rows.rows + i, std::min(kRowsPerWalk, rows.count - i), rows.ahead - i};
    add_few_rows(values, few, columns, total);
  }
}

template <typename Scalar>
P3D_INLINE void write_sum(const double* total, int64_t rows, int64_t columns, bool mean,
                          Scalar* sum) {
  const double divisor = mean && rows > 0 ? static_cast<double>(rows) : 1.0;
  for (int64_t c = 0; c < columns; ++c) {
    store(static_cast<Compute<Scalar>>(total[c] / divisor), sum[c]);
  }
}

// Few columns, as points have: the sums stay in registers from the first row to the result.
template <int kColumns, typename Scalar>
P3D_INLINE void sum_narrow_range(const Scalar* values, const Segments& segments, int64_t begin,
                                 int64_t end, bool mean, Scalar* sum) {
  const int64_t* order = segments.order;
  const int64_t last = segments.offsets[segments.count] - 1;
  constexpr int64_t row_bytes = kColumns * sizeof(Scalar);
  const int64_t early = rows_ahead(row_bytes);
  for (int64_t segment = begin; segment < end; ++segment) {
    const int64_t first = segments.offsets[segment];
    const int64_t rows = segments.offsets[segment + 1] - first;
    if (rows > kPieceRows) continue;
    double total[kColumns] = {};
    for (int64_t i = first; i < first + rows; ++i) {
      fetch_row(values + order[std::min(i + early, last)] * kColumns, row_bytes);
      const Scalar* value = values + order[i] * kColumns;
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) total[c] += load(value[c]);
    }
    const double divisor = mean && rows > 0 ? static_cast<double>(rows) : 1.0;
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      store(static_cast<Compute<Scalar>>(total[c] / divisor), sum[segment * kColumns + c]);
    }
  }
}

template <typename Scalar>
P3D_INLINE void sum_range_of(const Scalar* values, const Segments& segments, int64_t begin,
                             int64_t end, int64_t columns, bool mean, double* total, Scalar* sum) {
  switch (columns) {
    case 3:
      return sum_narrow_range<3>(values, segments, begin, end, mean, sum);
    case 4:
      return sum_narrow_range<4>(values, segments, begin, end, mean, sum);
    case 5:
      return sum_narrow_range<5>(values, segments, begin, end, mean, sum);
    case 6:
      return sum_narrow_range<6>(values, segments, begin, end, mean, sum);
  }
  const int64_t all_rows = segments.offsets[segments.count];
  for (int64_t segment = begin; segment < end; ++segment) {
    const int64_t first = segments.offsets[segment];
    const int64_t rows = segments.offsets[segment + 1] - first;
    if (rows > kPieceRows) continue;
    for (int64_t c = 0; c < columns; ++c) total[c] = 0.0;
    add_rows(values, Rows{segments.order + first, rows, all_rows - first}, columns, total);
    write_sum(total, rows, columns, mean, sum + segment * columns);
  }
}

// One function per scalar type, compiled for several machines.  total (columns) is scratch.
#define P3D_COMPILE_FOR(Scalar)                                                                    \
  P3D_CLONES void sum_range(const Scalar* values, const Segments& segments, int64_t begin,         \
                            int64_t end, int64_t columns, bool mean, double* total, Scalar* sum) { \
    sum_range_of(values, segments, begin, end, columns, mean, total, sum);                         \
  }                                                                                                \
  P3D_CLONES void sum_piece(const Scalar* values, const Rows& rows, int64_t columns,               \
                            double* total) {                                                       \
    add_rows(values, rows, columns, total);                                                        \
  }
P3D_FOR_EACH_STORAGE(P3D_COMPILE_FOR)
#undef P3D_COMPILE_FOR

template <typename Scalar>
void sum_long_segment(const Scalar* values, const Segments& segments, int64_t segment,
                      int64_t columns, bool mean, int workers, Scalar* sum) {
  const int64_t first = segments.offsets[segment];
  const int64_t rows = segments.offsets[segment + 1] - first;
  const int64_t pieces = pieces_of(rows);
  std::vector<double> totals(pieces * columns);
  for_each_dynamic(workers, pieces, 1, [&](int64_t piece) {
    const int64_t begin = piece * kPieceRows;
    const Rows part{segments.order + first + begin, std::min(kPieceRows, rows - begin),
                    rows - begin};
    sum_piece(values, part, columns, totals.data() + piece * columns);
  });
  for (int64_t piece = 1; piece < pieces; ++piece) {
    for (int64_t c = 0; c < columns; ++c) totals[c] += totals[piece * columns + c];
  }
  write_sum(totals.data(), rows, columns, mean, sum + segment * columns);
}

}  // namespace

template <typename Scalar>
void segment_sum(const Scalar* values, const Segments& segments, int64_t columns, bool mean,
                 Scalar* sum, int threads) {
  const int workers = worker_count_for(segments, columns, threads);
  for_each_range(segments, workers, [&](int64_t begin, int64_t end) {
    std::vector<double> total(columns);
    sum_range(values, segments, begin, end, columns, mean, total.data(), sum);
  });
  for (const int64_t segment : long_segments(segments)) {
    sum_long_segment(values, segments, segment, columns, mean, workers, sum);
  }
}

template <typename Scalar>
void segment_sum_backward(const Scalar* grad, const Segments& segments, int64_t num_rows,
                          int64_t columns, bool mean, Scalar* grad_values, int threads) {
  const int64_t* offsets = segments.offsets;
  const int64_t places = offsets[segments.count];
  if (places < num_rows) clear(grad_values, num_rows * columns, threads);
  // Cut by places in order, not by segments: a huge segment is then no special case.
  for_each_block(worker_count_for(segments, columns, threads), places,
                 [&](int, int64_t begin, int64_t end) {
                   int64_t segment =
                       std::upper_bound(offsets, offsets + segments.count + 1, begin) - offsets - 1;
                   for (int64_t i = begin; i < end; ++i) {
                     while (i >= offsets[segment + 1]) ++segment;
                     const int64_t rows = offsets[segment + 1] - offsets[segment];
                     const auto divisor = static_cast<Compute<Scalar>>(mean ? rows : 1);
                     const Scalar* source = grad + segment * columns;
                     Scalar* target = grad_values + segments.order[i] * columns;
                     for (int64_t c = 0; c < columns; ++c) {
                       store(load(source[c]) / divisor, target[c]);
                     }
                   }
                 });
}

#define P3D_INSTANTIATE(Scalar)                                                              \
  template void segment_sum(const Scalar*, const Segments&, int64_t, bool, Scalar*, int);    \
  template void segment_sum_backward(const Scalar*, const Segments&, int64_t, int64_t, bool, \
                                     Scalar*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
