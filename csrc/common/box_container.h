// Boxes that points are looked up in.  Host and device; all arithmetic is float64.
#pragma once

#include "common/rotated_box.h"

namespace perception3d {

// Keeps rounding from placing a member outside its box's bounds.
constexpr double kBoundsSlack = 1e-9;

struct BoxContainer {
  double x, y, z, cos, sin, reach_x, reach_y, half_z;
  double lower_x, upper_x, lower_y, upper_y;  // bounds around all members

  // Whether there can be no member.
  P3D_GEOMETRY bool is_empty() const { return !(lower_x <= upper_x); }

  // Whether a point can be a member; no for one that is not finite.
  P3D_GEOMETRY bool bounds(double px, double py) const {
    return px >= lower_x && px <= upper_x && py >= lower_y && py <= upper_y;
  }

  // In the frame of the box: |x|, |y| within its reach, |z| within its half.  kOpen excludes the
  // faces in x and y.
  template <bool kOpen>
  P3D_GEOMETRY bool contains(double px, double py, double pz) const {
    const double dx = px - x, dy = py - y, dz = pz - z;
    const double along = ::fabs(dx * cos + dy * sin), across = ::fabs(dy * cos - dx * sin);
    const bool inside =
        kOpen ? along < reach_x && across < reach_y : along <= reach_x && across <= reach_y;
    return inside && ::fabs(dz) <= half_z;
  }
};

// row: x, y, z, dx, dy, dz, yaw.  Empty if one of them is not finite, or a size below 0 remains.
template <typename T>
P3D_GEOMETRY BoxContainer make_container(const T* row, double margin) {
  BoxContainer c;
  const double yaw = row[6];
  c.x = row[0];
  c.y = row[1];
  c.z = row[2];
  c.reach_x = 0.5 * row[3] + margin;
  c.reach_y = 0.5 * row[4] + margin;
  c.half_z = 0.5 * row[5];
  c.cos = ::cos(yaw);
  c.sin = ::sin(yaw);
  const double extent_x = ::fabs(c.cos) * c.reach_x + ::fabs(c.sin) * c.reach_y;
  const double extent_y = ::fabs(c.sin) * c.reach_x + ::fabs(c.cos) * c.reach_y;
  const double slack = kBoundsSlack * (::fabs(c.x) + ::fabs(c.y) + c.reach_x + c.reach_y);
  c.lower_x = c.x - extent_x - slack;
  c.upper_x = c.x + extent_x + slack;
  c.lower_y = c.y - extent_y - slack;
  c.upper_y = c.y + extent_y + slack;
  bool known = true;
  for (int i = 0; i < 7; ++i) known = known && is_finite(row[i]);
  if (!known || c.reach_x < 0 || c.reach_y < 0 || c.half_z < 0) c.lower_x = kNotANumber;
  return c;
}

}  // namespace perception3d
