#include "cpu/footprints.h"

#include <algorithm>

#include "common/parallel.h"

namespace perception3d {
namespace {

// Fills one byte per circle; returns how many are near.
P3D_CLONES int64_t mark_near(const double *x, const double *y, const double *radius, int64_t count,
                             double box_x, double box_y, double box_radius, unsigned char *near) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool is_near = may_overlap(box_x, box_y, box_radius, x[i], y[i], radius[i]);
    near[i] = is_near;
    total += is_near;
  }
  return total;
}

struct Columns {
  double x[kFootprintsPerTest], y[kFootprintsPerTest];
  double half_length[kFootprintsPerTest], half_width[kFootprintsPerTest];
  double cos[kFootprintsPerTest], sin[kFootprintsPerTest];
};

P3D_CLONES void overlap_columns(const Footprint &box, const Columns &others, int64_t count,
                                double *areas) {
  const Footprint a = box;
  for (int64_t i = 0; i < count; ++i) {
    const Footprint b = {others.x[i],          others.y[i],   others.half_length[i],
                         others.half_width[i], others.cos[i], others.sin[i]};
    areas[i] = overlap_area(a, b);
  }
}

}  // namespace

void Footprints::reserve(int64_t count) {
  for (std::vector<double> *column :
       {&x_, &y_, &radius_, &half_length_, &half_width_, &cos_, &sin_}) {
    column->reserve(count);
  }
}

void Footprints::add(const RotatedBox &box) {
  x_.push_back(box.x);
  y_.push_back(box.y);
  radius_.push_back(box.radius);
  half_length_.push_back(box.half_length);
  half_width_.push_back(box.half_width);
  cos_.push_back(box.cos);
  sin_.push_back(box.sin);
}

uint64_t Footprints::find_near(const RotatedBox &box, int64_t begin, int64_t end) const {
  unsigned char near[kFootprintsPerTest];
  const int64_t count = std::min(kFootprintsPerTest, end - begin);
  if (mark_near(x_.data() + begin, y_.data() + begin, radius_.data() + begin, count, box.x, box.y,
                box.radius, near) == 0) {
    return 0;
  }
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits |= static_cast<uint64_t>(near[i]) << i;
  return bits;
}

void Footprints::overlap_with(const Footprint &box, const int64_t *rows, int64_t count,
                              double *areas) const {
  Columns others;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = rows[i];
    others.x[i] = x_[row];
    others.y[i] = y_[row];
    others.half_length[i] = half_length_[row];
    others.half_width[i] = half_width_[row];
    others.cos[i] = cos_[row];
    others.sin[i] = sin_[row];
  }
  overlap_columns(box, others, count, areas);
}

}  // namespace perception3d
