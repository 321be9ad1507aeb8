#include "cpu/add_norm.h"

#include <algorithm>
#include <cmath>

#include "cpu/lane_sums.h"

namespace perception3d {
namespace {

// Rows are fetched this many rows ahead.
constexpr int64_t kRowsAhead = 4;

// Rows of a result.
template <typename Number>
struct Target {
  Number* data;
  const int64_t* order;

  P3D_INLINE Number* at(int64_t r, int64_t columns) const {
    return data + (order == nullptr ? r : order[r]) * columns;
  }
};

template <bool kWritten, typename Number>
P3D_INLINE void fetch_row(const Number* row, int64_t columns) {
  for (int64_t c = 0; c < columns; c += kLanesOf<Number>) __builtin_prefetch(row + c, kWritten, 3);
}

// A row of any length: the sum, then the mean, the squares, and the result.
template <typename Number>
P3D_INLINE void go_through_row(const Number* kept, const AddNorm<Number>& stage, int64_t columns,
                               Number epsilon, Number* row) {
  constexpr int lanes = kLanesOf<Number>;
  const int64_t whole = columns / lanes * lanes;
  Vector<Number> total{}, squares{}, numbers, others;
  Number rest = 0, rest_of_squares = 0;
  for (int64_t c = 0; c < whole; c += lanes) {
    load_vector<lanes>(row + c, numbers);
    load_vector<lanes>(kept + c, others);
    numbers += others;
    total += numbers;
    store_vector<lanes>(numbers, row + c);
  }
  for (int64_t c = whole; c < columns; ++c) {
    row[c] += kept[c];
    rest += row[c];
  }
  const Number mean = (sum_lanes<Number>(total) + rest) / static_cast<Number>(columns);
  for (int64_t c = 0; c < whole; c += lanes) {
    load_vector<lanes>(row + c, numbers);
    numbers -= mean;
    squares += numbers * numbers;
  }
  for (int64_t c = whole; c < columns; ++c) rest_of_squares += (row[c] - mean) * (row[c] - mean);
  const Number sum_of_squares = sum_lanes<Number>(squares) + rest_of_squares;
  const Number scale = 1 / std::sqrt(sum_of_squares / static_cast<Number>(columns) + epsilon);
  for (int64_t c = 0; c < whole; c += lanes) {
    load_vector<lanes>(row + c, numbers);
    load_vector<lanes>(stage.weight + c, others);
    numbers = (numbers - mean) * scale * others;
    load_vector<lanes>(stage.bias + c, others);
    numbers += others;
    store_vector<lanes>(numbers, row + c);
  }
  for (int64_t c = whole; c < columns; ++c) {
    row[c] = (row[c] - mean) * scale * stage.weight[c] + stage.bias[c];
  }
}

template <typename Number>
P3D_INLINE void go_through_rows(const AddNorms<Number>& norms, int64_t columns, int64_t rows,
                                Number* matrix, const Target<Number>& target) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t soon = std::min(r + kRowsAhead, rows - 1);
    Number* row = matrix + r * columns;
    for (int64_t s = 0; s < norms.count; ++s) {
      const AddNorm<Number>& stage = norms.stages[s];
      fetch_row<false>(stage.at(soon), columns);
      go_through_row(stage.at(r), stage, columns, norms.epsilon, row);
    }
    Number* result = target.at(r, columns);
    if (result != row) std::copy_n(row, columns, result);
  }
}

// The sum of all lanes of four vectors.
template <typename Number>
P3D_INLINE Number sum_of_four(const Vector<Number> (&vectors)[4]) {
  const Vector<Number> sum = (vectors[0] + vectors[1]) + (vectors[2] + vectors[3]);
  return sum_lanes<Number>(sum);
}

// Rows of kVectors vectors, which stay in registers through all norms.
template <int kVectors, typename Number>
P3D_INLINE void go_through_held_rows(const AddNorms<Number>& norms, int64_t rows,
                                     const Number* matrix, const Target<Number>& target) {
  constexpr int lanes = kLanesOf<Number>;
  constexpr int64_t columns = kVectors * lanes;
  for (int64_t r = 0; r < rows; ++r) {
    const Number* row = matrix + r * columns;
    const int64_t soon = std::min(r + kRowsAhead, rows - 1);
    fetch_row<true>(target.at(soon, columns), columns);
    Vector<Number> held[kVectors], others;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) load_vector<lanes>(row + v * lanes, held[v]);
    for (int64_t s = 0; s < norms.count; ++s) {
      const AddNorm<Number>& stage = norms.stages[s];
      const Number* kept = stage.at(r);
      fetch_row<false>(stage.at(soon), columns);
      Vector<Number> total[4] = {}, squares[4] = {};
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        load_vector<lanes>(kept + v * lanes, others);
        held[v] += others;
        total[v % 4] += held[v];
      }
      const Number mean = sum_of_four<Number>(total) / Number(columns);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        held[v] -= mean;
        squares[v % 4] += held[v] * held[v];
      }
      const Number variance = sum_of_four<Number>(squares) / Number(columns);
      const Number scale = 1 / std::sqrt(variance + norms.epsilon);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        load_vector<lanes>(stage.weight + v * lanes, others);
        held[v] = held[v] * scale * others;
        load_vector<lanes>(stage.bias + v * lanes, others);
        held[v] += others;
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      store_vector<lanes>(held[v], target.at(r, columns) + v * lanes);
    }
  }
}

template <typename Number>
P3D_INLINE void go_through_of(const AddNorms<Number>& norms, int64_t columns, int64_t rows,
                              Number* matrix, const Target<Number>& target) {
  switch (columns % kLanesOf<Number> == 0 ? columns / kLanesOf<Number> : 0) {
    case 4:
      return go_through_held_rows<4>(norms, rows, matrix, target);
    case 8:
      return go_through_held_rows<8>(norms, rows, matrix, target);
    case 12:
      return go_through_held_rows<12>(norms, rows, matrix, target);
    case 16:
      return go_through_held_rows<16>(norms, rows, matrix, target);
    default:
      return go_through_rows(norms, columns, rows, matrix, target);
  }
}

P3D_CLONES void go_through(const AddNorms<float>& norms, int64_t columns, int64_t rows,
                           float* matrix, const Target<float>& target) {
  go_through_of(norms, columns, rows, matrix, target);
}
P3D_CLONES void go_through(const AddNorms<double>& norms, int64_t columns, int64_t rows,
                           double* matrix, const Target<double>& target) {
  go_through_of(norms, columns, rows, matrix, target);
}

}  // namespace

template <typename Number>
void add_and_norm(const AddNorms<Number>& norms, int64_t columns, int64_t rows, Number* matrix,
                  Number* target, const int64_t* order) {
  go_through(norms, columns, rows, matrix, Target<Number>{target, order});
}

template void add_and_norm(const AddNorms<float>&, int64_t, int64_t, float*, float*,
                           const int64_t*);
template void add_and_norm(const AddNorms<double>&, int64_t, int64_t, double*, double*,
                           const int64_t*);

}  // namespace perception3d
