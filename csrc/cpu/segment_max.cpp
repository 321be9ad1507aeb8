#include <type_traits>

#include "cpu/segment_loops.h"
#include "cpu/vectors.h"

namespace perception3d {
namespace {

// Places are as wide as the numbers, so that one comparison picks both.
template <typename Number>
using PlaceOf = std::conditional_t<sizeof(Number) == 4, int32_t, int64_t>;

// Rows first .. last - 1 of a segment, of whose places up to `ahead` may be looked at.
struct Rows {
  const int64_t* rows;
  int64_t first, last, ahead;
};

// Raises the maximum of kVectors * kWidth columns and the place of the first row that has it; both
// are what the rows before have led to, or nothing yet if `fresh`.
template <int kVectors, int kWidth, bool kWithPlace, bool kFetch, typename Scalar>
P3D_INLINE void raise_wide(const Scalar* values, const Rows& rows, int64_t columns, bool fresh,
                           Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {
  using Number = Compute<Scalar>;
  using Places = Numbers<PlaceOf<Number>, kWidth>;
  const int64_t row_bytes = columns * static_cast<int64_t>(sizeof(Scalar));
  const int64_t early = rows_ahead(row_bytes);
  Numbers<Number, kWidth> top[kVectors];
  Places where[kVectors] = {};
  if (fresh) {
    const Scalar* start = values + rows.rows[rows.first] * columns;
    for (int v = 0; v < kVectors; ++v) {
      load_vector<kWidth>(start + v * kWidth, top[v]);
      if (kWithPlace) where[v] += static_cast<PlaceOf<Number>>(rows.first);
    }
  } else {
    std::memcpy(top, best, sizeof(top));
    if (kWithPlace) std::memcpy(where, place, sizeof(where));
  }
  for (int64_t i = rows.first; i < rows.last; ++i) {
    if (kFetch && i + early < rows.ahead) {
      fetch_row(values + rows.rows[i + early] * columns, row_bytes);
    }
    const Scalar* value = values + rows.rows[i] * columns;
    const Places here = Places{} + static_cast<PlaceOf<Number>>(i);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Numbers<Number, kWidth> lanes;
      load_vector<kWidth>(value + v * kWidth, lanes);
      // Larger numbers and the first NaN are taken.
      if (kWithPlace) {
        where[v] = top[v] != top[v] ? where[v] : lanes <= top[v] ? where[v] : here;
      }
      top[v] = top[v] != top[v] ? top[v] : lanes <= top[v] ? top[v] : lanes;
    }
  }
  std::memcpy(best, top, sizeof(top));
  if (kWithPlace) std::memcpy(place, where, sizeof(where));
}

template <bool kWithPlace, typename Scalar>
P3D_INLINE void raise_narrow(const Scalar* values, const Rows& rows, int64_t columns, int64_t count,
                             bool fresh, Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {
  using Place = PlaceOf<Compute<Scalar>>;
  for (int64_t c = 0; fresh && c < count; ++c) {
    best[c] = load(values[rows.rows[rows.first] * columns + c]);
    if (kWithPlace) place[c] = static_cast<Place>(rows.first);
  }
  for (int64_t i = rows.first; i < rows.last; ++i) {
    const Scalar* value = values + rows.rows[i] * columns;
    for (int64_t c = 0; c < count; ++c) {
      const Compute<Scalar> v = load(value[c]);
      const bool take = v > best[c] || (v != v && best[c] == best[c]);
      if (!take) continue;
      best[c] = v;
      if (kWithPlace) place[c] = static_cast<Place>(i);
    }
  }
}

// The first columns fetch rows of which the others find all in the cache.
template <bool kWithPlace, typename Scalar>
P3D_INLINE void raise_few_rows(const Scalar* values, const Rows& rows, int64_t columns, bool fresh,
                               Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {
  // GCC 12 takes comparisons of vectors of 64 bytes apart, number by number.
  constexpr int width = 32 / sizeof(Compute<Scalar>);
  constexpr int vectors = kWithPlace ? 4 : 8;
  constexpr int64_t wide = vectors * width;
  int64_t c = 0;
  if (columns >= wide) {
    raise_wide<vectors, width, kWithPlace, true>(values, rows, columns, fresh, best, place);
    c = wide;
  } else if (columns >= width) {
    raise_wide<1, width, kWithPlace, true>(values, rows, columns, fresh, best, place);
    c = width;
  }
  for (; c + wide <= columns; c += wide) {
    raise_wide<vectors, width, kWithPlace, false>(values + c, rows, columns, fresh, best + c,
                                                  place + c);
  }
  for (; c + width <= columns; c += width) {
    raise_wide<1, width, kWithPlace, false>(values + c, rows, columns, fresh, best + c, place + c);
  }
  raise_narrow<kWithPlace>(values + c, rows, columns, columns - c, fresh, best + c, place + c);
}

template <bool kWithPlace, typename Scalar>
P3D_INLINE void raise_rows_of(const Scalar* values, const Rows& rows, int64_t columns,
                              Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {
  for (int64_t i = rows.first; i < rows.last; i += kRowsPerWalk) {
    const Rows few{rows.rows, i, std::min(i + kRowsPerWalk, rows.last), rows.ahead};
    raise_few_rows<kWithPlace>(values, few, columns, i == rows.first, best, place);
  }
}

// One function per scalar type, compiled for several machines.  place is scratch, ignored unless
// `with_place`.
template <typename Scalar>
P3D_INLINE void raise_rows(const Scalar* values, const Rows& rows, int64_t columns, bool with_place,
                           Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {
  if (with_place) {
    raise_rows_of<true>(values, rows, columns, best, place);
  } else {
    raise_rows_of<false>(values, rows, columns, best, place);
  }
}

// best and place (columns) are scratch.
template <typename Scalar>
P3D_INLINE void max_range_of(const Scalar* values, const Segments& segments, int64_t begin,
                             int64_t end, int64_t columns, Compute<Scalar>* best,
                             PlaceOf<Compute<Scalar>>* place, Scalar* maximum,
                             int32_t* row_of_maximum) {
  const int64_t all_rows = segments.offsets[segments.count];
  for (int64_t segment = begin; segment < end; ++segment) {
    const int64_t first = segments.offsets[segment];
    const int64_t rows = segments.offsets[segment + 1] - first;
    if (rows > kPieceRows) continue;
    if (rows == 0) {
      for (int64_t c = 0; c < columns; ++c) best[c] = 0;
    } else {
      const Rows part{segments.order + first, 0, rows, all_rows - first};
      raise_rows(values, part, columns, row_of_maximum != nullptr, best, place);
    }
    for (int64_t c = 0; c < columns; ++c) store(best[c], maximum[segment * columns + c]);
    if (row_of_maximum == nullptr) continue;
    int32_t* row = row_of_maximum + segment * columns;
    for (int64_t c = 0; c < columns; ++c) {
      row[c] = rows == 0 ? -1 : static_cast<int32_t>(segments.order[first + place[c]]);
    }
  }
}

#define P3D_COMPILE_FOR(Scalar)                                                                \
  P3D_CLONES void max_range(const Scalar* values, const Segments& segments, int64_t begin,     \
                            int64_t end, int64_t columns, Compute<Scalar>* best,               \
                            PlaceOf<Compute<Scalar>>* place, Scalar* maximum,                  \
                            int32_t* row_of_maximum) {                                         \
    max_range_of(values, segments, begin, end, columns, best, place, maximum, row_of_maximum); \
  }                                                                                            \
  P3D_CLONES void max_piece(const Scalar* values, const Rows& rows, int64_t columns,           \
                            Compute<Scalar>* best, PlaceOf<Compute<Scalar>>* place) {          \
    raise_rows(values, rows, columns, true, best, place);                                      \
  }
P3D_FOR_EACH_STORAGE(P3D_COMPILE_FOR)
#undef P3D_COMPILE_FOR

template <typename Scalar>
void max_long_segment(const Scalar* values, const Segments& segments, int64_t segment,
                      int64_t columns, int workers, Scalar* maximum, int32_t* row_of_maximum) {
  const int64_t* order = segments.order + segments.offsets[segment];
  const int64_t rows = segments.offsets[segment + 1] - segments.offsets[segment];
  const int64_t pieces = pieces_of(rows);
  std::vector<Compute<Scalar>> best(pieces * columns);
  std::vector<PlaceOf<Compute<Scalar>>> place(pieces * columns);
  for_each_dynamic(workers, pieces, 1, [&](int64_t piece) {
    const int64_t begin = piece * kPieceRows;
    const Rows part{order, begin, std::min(rows, begin + kPieceRows), rows};
    max_piece(values, part, columns, best.data() + piece * columns, place.data() + piece * columns);
  });
  for (int64_t c = 0; c < columns; ++c) {
    int64_t winner = c;
    for (int64_t other = columns + c; other < pieces * columns; other += columns) {
      const Compute<Scalar> v = best[other], b = best[winner];
      if (v > b || (v != v && b == b)) winner = other;
    }
    store(best[winner], maximum[segment * columns + c]);
    if (row_of_maximum != nullptr) {
      row_of_maximum[segment * columns + c] = static_cast<int32_t>(order[place[winner]]);
    }
  }
}

}  // namespace

template <typename Scalar>
void segment_max(const Scalar* values, const Segments& segments, int64_t columns, Scalar* maximum,
                 int32_t* row_of_maximum, int threads) {
  const int workers = worker_count_for(segments, columns, threads);
  for_each_range(segments, workers, [&](int64_t begin, int64_t end) {
    std::vector<Compute<Scalar>> best(columns);
    std::vector<PlaceOf<Compute<Scalar>>> place(columns);
    max_range(values, segments, begin, end, columns, best.data(), place.data(), maximum,
              row_of_maximum);
  });
  for (const int64_t segment : long_segments(segments)) {
    max_long_segment(values, segments, segment, columns, workers, maximum, row_of_maximum);
  }
}

template <typename Scalar>
void segment_max_backward(const Scalar* grad, const int32_t* row_of_maximum, int64_t num_segments,
                          int64_t num_rows, int64_t columns, Scalar* grad_values, int threads) {
  clear(grad_values, num_rows * columns, threads);
  const int workers = worker_count(threads, num_segments * columns, kNumbersPerWorker);
  for_each_block(workers, num_segments, [&](int, int64_t begin, int64_t end) {
    for (int64_t segment = begin; segment < end; ++segment) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t row = row_of_maximum[segment * columns + c];
        if (row >= 0) grad_values[row * columns + c] = grad[segment * columns + c];
      }
    }
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                \
  template void segment_max(const Scalar*, const Segments&, int64_t, Scalar*, int32_t*, int);  \
  template void segment_max_backward(const Scalar*, const int32_t*, int64_t, int64_t, int64_t, \
                                     Scalar*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
