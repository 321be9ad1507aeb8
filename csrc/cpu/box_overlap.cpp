#include "cpu/box_overlap.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/footprints.h"

namespace perception3d {
namespace {

constexpr int64_t kPairsPerWorker = 16384;

bool looks_at_z(BoxMeasure measure) {
  return measure == BoxMeasure::kIou3d || measure == BoxMeasure::kGiou3d;
}

// A box whose footprint is marked unknown where z matters and is not finite: the
// tests of circles then let the pair through, and its measure is NaN.
template <typename T>
RotatedBox make_box_for(const T *row, BoxMeasure measure) {
  RotatedBox box = make_rotated_box(row);
  if (looks_at_z(measure) && !is_finite(box.top)) box.x = kNotANumber;
  return box;
}

// One row of the matrix.  Boxes too far apart for an overlap have a measure of
// 0, but for GIoU, which looks at the gap.
template <typename T>
void measure_row(const RotatedBox &box, const std::vector<RotatedBox> &others,
                 const Footprints &footprints, BoxMeasure measure, T *row) {
  const int64_t count = footprints.size();
  if (measure == BoxMeasure::kGiouBev || measure == BoxMeasure::kGiou3d) {
    std::vector<double> areas(count, 0.0);
    visit_near(footprints, box, 0, count, kFootprintsPerTest, [&](int64_t i, double area) {
      areas[i] = area;
      return false;
    });
    for (int64_t i = 0; i < count; ++i) {
      row[i] = static_cast<T>(measure_overlap(box, others[i], areas[i], measure));
    }
    return;
  }
  std::fill(row, row + count, T{0});
  visit_near(footprints, box, 0, count, kFootprintsPerTest, [&](int64_t i, double area) {
    row[i] = static_cast<T>(measure_overlap(box, others[i], area, measure));
    return false;
  });
}

}  // namespace

template <typename T>
void measure_box_matrix(const T *boxes_a, int64_t num_a, const T *boxes_b, int64_t num_b,
                        BoxMeasure measure, T *result, int threads) {
  std::vector<RotatedBox> others;
  Footprints footprints;
  others.reserve(num_b);
  footprints.reserve(num_b);
  for (int64_t b = 0; b < num_b; ++b) {
    others.push_back(make_box_for(boxes_b + b * 7, measure));
    footprints.add(others.back());
  }
  const int workers = worker_count(threads, num_a * num_b, kPairsPerWorker);
  for_each_dynamic(workers, num_a, 4, [&](int64_t a) {
    measure_row(make_box_for(boxes_a + a * 7, measure), others, footprints, measure,
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
