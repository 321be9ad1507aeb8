#include "cpu/box_overlap.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/circles.h"

namespace perception3d {
namespace {

constexpr int64_t kPairsPerWorker = 2048;

// Whether boxes too far apart for an overlap have a measure of 0; GIoU looks at
// the gap.
bool is_zero_when_far(BoxMeasure measure) {
  return measure != BoxMeasure::kGiouBev && measure != BoxMeasure::kGiou3d;
}

// x of the circle that stands for a box: NaN, which is never far, where the
// measure of the box is NaN.
double circle_x(const RotatedBox &box, BoxMeasure measure) {
  return measure == BoxMeasure::kIou3d && !is_finite(box.top) ? kNotANumber : box.x;
}

// One row of the matrix.
template <typename T>
void measure_row(const RotatedBox &box, const RotatedBox *others, const Circles &circles,
                 BoxMeasure measure, T *row) {
  const int64_t count = circles.size();
  if (!is_zero_when_far(measure)) {
    for (int64_t i = 0; i < count; ++i) {
      row[i] = static_cast<T>(measure_boxes(box, others[i], measure));
    }
    return;
  }
  std::fill(row, row + count, T{0});
  const double x = circle_x(box, measure);
  for (int64_t begin = 0; begin < count; begin += kCirclesPerTest) {
    uint64_t near = find_near(circles, begin, count, x, box.y, box.radius);
    for (; near != 0; near &= near - 1) {
      const int64_t i = begin + __builtin_ctzll(near);
      row[i] = static_cast<T>(measure_boxes(box, others[i], measure));
    }
  }
}

}  // namespace

template <typename T>
void measure_box_matrix(const T *boxes_a, int64_t num_a, const T *boxes_b, int64_t num_b,
                        BoxMeasure measure, T *result, int threads) {
  std::vector<RotatedBox> others(num_b);
  Circles circles;
  circles.reserve(num_b);
  for (int64_t b = 0; b < num_b; ++b) {
    others[b] = make_rotated_box(boxes_b + b * 7);
    circles.add(circle_x(others[b], measure), others[b].y, others[b].radius);
  }
  const int workers = worker_count(threads, num_a * num_b, kPairsPerWorker);
  for_each_dynamic(workers, num_a, 4, [&](int64_t a) {
    measure_row(make_rotated_box(boxes_a + a * 7), others.data(), circles, measure,
                result + a * num_b);
  });
}

template <typename T>
void measure_box_pairs(const T *boxes_a, const T *boxes_b, int64_t count, BoxMeasure measure,
                       T *result, int threads) {
  const int workers = worker_count(threads, count, kPairsPerWorker);
  for_each_block(workers, count, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RotatedBox a = make_rotated_box(boxes_a + i * 7);
      result[i] = static_cast<T>(measure_boxes(a, make_rotated_box(boxes_b + i * 7), measure));
    }
  });
}

template void measure_box_matrix(const float *, int64_t, const float *, int64_t, BoxMeasure,
                                 float *, int);
template void measure_box_matrix(const double *, int64_t, const double *, int64_t, BoxMeasure,
                                 double *, int);
template void measure_box_pairs(const float *, const float *, int64_t, BoxMeasure, float *, int);
template void measure_box_pairs(const double *, const double *, int64_t, BoxMeasure, double *, int);

}  // namespace perception3d
