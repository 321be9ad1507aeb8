#include "cpu/add_norm.h"

#include <cmath>

#include "cpu/lane_sums.h"

namespace perception3d {
namespace {

// A row in the first-level cache: the sum, then the mean, the squares, and the result.
template <typename Number>
P3D_INLINE void add_and_norm_row(const Number* kept, const Number* weight, const Number* bias,
                                 int64_t columns, Number epsilon, Number* row) {
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
    load_vector<lanes>(weight + c, others);
    numbers = (numbers - mean) * scale * others;
    load_vector<lanes>(bias + c, others);
    numbers += others;
    store_vector<lanes>(numbers, row + c);
  }
  for (int64_t c = whole; c < columns; ++c) {
    row[c] = (row[c] - mean) * scale * weight[c] + bias[c];
  }
}

template <typename Number>
P3D_INLINE void add_and_norm_rows(const AddNorms<Number>& norms, int64_t columns, int64_t begin,
                                  int64_t end, Number* matrix) {
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t s = 0; s < norms.count; ++s) {
      const AddNorm<Number>& stage = norms.stages[s];
      add_and_norm_row(stage.kept + r * stage.step, stage.weight, stage.bias, columns,
                       norms.epsilon, matrix + r * columns);
    }
  }
}

P3D_CLONES void go_through(const AddNorms<float>& norms, int64_t columns, int64_t begin,
                           int64_t end, float* matrix) {
  add_and_norm_rows(norms, columns, begin, end, matrix);
}
P3D_CLONES void go_through(const AddNorms<double>& norms, int64_t columns, int64_t begin,
                           int64_t end, double* matrix) {
  add_and_norm_rows(norms, columns, begin, end, matrix);
}

}  // namespace

template <typename Number>
void add_and_norm(const AddNorms<Number>& norms, int64_t columns, int64_t begin, int64_t end,
                  Number* matrix) {
  go_through(norms, columns, begin, end, matrix);
}

template void add_and_norm(const AddNorms<float>&, int64_t, int64_t, int64_t, float*);
template void add_and_norm(const AddNorms<double>&, int64_t, int64_t, int64_t, double*);

}  // namespace perception3d
