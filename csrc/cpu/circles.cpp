#include "cpu/circles.h"

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

P3D_CLONES int64_t count_within(const double *x, const double *y, int64_t count, double center_x,
                                double center_y, double squared_distance) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double dx = x[i] - center_x, dy = y[i] - center_y;
    total += dx * dx + dy * dy <= squared_distance;
  }
  return total;
}

}  // namespace

void Circles::reserve(int64_t count) {
  x.reserve(count);
  y.reserve(count);
  radius.reserve(count);
}

void Circles::add(double center_x, double center_y, double circle_radius) {
  x.push_back(center_x);
  y.push_back(center_y);
  radius.push_back(circle_radius);
}

uint64_t find_near(const Circles &circles, int64_t begin, int64_t end, double x, double y,
                   double radius) {
  unsigned char near[kCirclesPerTest];
  const int64_t count = std::min(kCirclesPerTest, end - begin);
  if (mark_near(circles.x.data() + begin, circles.y.data() + begin, circles.radius.data() + begin,
                count, x, y, radius, near) == 0) {
    return 0;
  }
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits |= static_cast<uint64_t>(near[i]) << i;
  return bits;
}

bool any_within(const Circles &circles, int64_t begin, int64_t end, double x, double y,
                double squared_distance) {
  for (int64_t at = begin; at < end; at += kCirclesPerTest) {
    const int64_t count = std::min(kCirclesPerTest, end - at);
    if (count_within(circles.x.data() + at, circles.y.data() + at, count, x, y, squared_distance)) {
      return true;
    }
  }
  return false;
}

}  // namespace perception3d
