// Circles around boxes, in one array per number, for tests of many at once.
#pragma once

#include <cstdint>
#include <vector>

#include "common/rotated_box.h"

namespace perception3d {

struct Circles {
  std::vector<double> x, y, radius;

  int64_t size() const { return static_cast<int64_t>(x.size()); }
  void reserve(int64_t count);
  void add(double center_x, double center_y, double circle_radius);
};

constexpr int64_t kCirclesPerTest = 64;

// Says for up to 64 circles from `begin` on whether the circle around the given
// box leaves room for an overlap: bit i of the result belongs to circle
// begin + i.  A centre that is NaN, on either side, counts as near.
uint64_t find_near(const Circles &circles, int64_t begin, int64_t end, double x, double y,
                   double radius);

// Whether any centre in begin..end-1 lies within a squared distance of (x, y);
// never for NaN.
bool any_within(const Circles &circles, int64_t begin, int64_t end, double x, double y,
                double squared_distance);

}  // namespace perception3d
