// Two upright boxes turned about z: exact overlap of their footprints, hull of
// both, IoU and GIoU.  Host and device; all arithmetic is float64.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define P3D_GEOMETRY __host__ __device__ inline
#else
// Inlined always, so that loops over boxes are compiled for each kind of CPU.
#define P3D_GEOMETRY inline __attribute__((always_inline))
#endif

namespace perception3d {

// What is measured between two boxes.  The numbers are those of
// perception3d/ops/box_overlap.py.
enum class BoxMeasure : int {
  kOverlap = 0,  // intersection area of the footprints
  kIouBev = 1,
  kIou3d = 2,
  kGiouBev = 3,
  kGiou3d = 4,
};

constexpr double kNotANumber = __builtin_nan("");

// Boxes whose footprints interlock by less than this share of their sizes only
// touch: the depth is rounding, and their overlap is exactly 0.
constexpr double kTouching = 1e-14;

P3D_GEOMETRY double smaller(double a, double b) { return a < b ? a : b; }
P3D_GEOMETRY double larger(double a, double b) { return a > b ? a : b; }
P3D_GEOMETRY double clamped(double value, double low, double high) {
  return smaller(larger(value, low), high);
}
P3D_GEOMETRY bool is_finite(double value) { return value - value == 0; }

// What a box covers of the ground, ready for tests against many others.  Sizes
// below 0 count as 0.  x is NaN if any of its numbers is not finite: then what it
// overlaps is NaN, and no comparison with that is true.
struct Footprint {
  double x, y;
  double half_length, half_width;
  double cos, sin;

  P3D_GEOMETRY double area() const { return 4 * half_length * half_width; }
};

// bottom and top are NaN if z or dz is not finite.
struct RotatedBox : Footprint {
  double radius;  // of the circle around the footprint
  double bottom, top;

  P3D_GEOMETRY double height() const { return top - bottom; }
};

// row: x, y, z, dx, dy, dz, yaw.
template <typename T>
P3D_GEOMETRY RotatedBox make_rotated_box(const T *row) {
  RotatedBox box;
  const double z = row[2], height = larger(row[5], 0), yaw = row[6];
  box.x = row[0];
  box.y = row[1];
  box.half_length = 0.5 * larger(row[3], 0);
  box.half_width = 0.5 * larger(row[4], 0);
  box.cos = ::cos(yaw);
  box.sin = ::sin(yaw);
  box.radius = ::sqrt(box.half_length * box.half_length + box.half_width * box.half_width);
  box.bottom = z - 0.5 * height;
  box.top = z + 0.5 * height;
  if (!is_finite(box.x + box.y + row[3] + row[4] + yaw)) box.x = kNotANumber;
  if (!is_finite(z + row[5])) box.bottom = box.top = kNotANumber;
  return box;
}

// Whether the circles around two footprints leave room for an overlap; true for
// unknown ones.
P3D_GEOMETRY bool may_overlap(double ax, double ay, double a_radius, double bx, double by,
                              double b_radius) {
  const double dx = bx - ax, dy = by - ay, reach = a_radius + b_radius;
  return !(dx * dx + dy * dy >= reach * reach);
}

// An edge m + t * d, t in [-1, 1], with 1/d, or 0 where d is no direction.
struct Edge {
  double dx, dy, inverse_dx, inverse_dy;
};

P3D_GEOMETRY double inverse_or_zero(double value) {
  const bool spans = ::fabs(value) > 1e-100;  // the inverse stays finite; the rest spans nothing
  return (spans ? 1.0 : 0.0) / (spans ? value : 1.0);
}

P3D_GEOMETRY Edge make_edge(double dx, double dy) {
  return {dx, dy, inverse_or_zero(dx), inverse_or_zero(dy)};
}

// Integral over t of y(t), limited to [-half_y, half_y], along the part of an
// edge with midpoint (mx, my) whose x(t) lies in [-half_x, half_x].
P3D_GEOMETRY double integrate_edge(const Edge &edge, double mx, double my, double half_x,
                                   double half_y) {
  const double enter = (-half_x - mx) * edge.inverse_dx, leave = (half_x - mx) * edge.inverse_dx;
  const double begin = clamped(smaller(enter, leave), -1, 1);
  const double end = clamped(larger(enter, leave), -1, 1);
  const double first = clamped(my + begin * edge.dy, -half_y, half_y);
  const double last = clamped(my + end * edge.dy, -half_y, half_y);
  // y is at a limit, then linear, then at a limit.
  const double low = (-half_y - my) * edge.inverse_dy, high = (half_y - my) * edge.inverse_dy;
  const double rise = clamped(smaller(low, high), begin, end);
  const double fall = clamped(larger(low, high), begin, end);
  return (rise - begin) * first + 0.5 * (fall - rise) * (first + last) + (end - fall) * last;
}

// Intersection area of two footprints.
//
// In the frame of a, a vertical line cuts b in [low, high]; a contains
// clamp(high) - clamp(low) of it, with the clamp at a's width.  So the area is
// the boundary integral of clamp(y) dx over the edges of b between a's ends: no
// vertex is ever classified, and rounding can move the result only by rounding.
// There are no branches either: loops over pairs vectorise.  Swapping a and b
// changes the result by rounding.
P3D_GEOMETRY double overlap_area(const Footprint &a, const Footprint &b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double ax = a.half_length, ay = a.half_width;
  const double x = dx * a.cos + dy * a.sin, y = dy * a.cos - dx * a.sin;
  const double cos = a.cos * b.cos + a.sin * b.sin, sin = a.cos * b.sin - a.sin * b.cos;
  const Edge u = make_edge(cos * b.half_length, sin * b.half_length);
  const Edge v = make_edge(-sin * b.half_width, cos * b.half_width);
  const double area = u.dx * (integrate_edge(u, x + v.dx, y + v.dy, ax, ay) -
                              integrate_edge(u, x - v.dx, y - v.dy, ax, ay)) +
                      v.dx * (integrate_edge(v, x - u.dx, y - u.dy, ax, ay) -
                              integrate_edge(v, x + u.dx, y + u.dy, ax, ay));

  // How far the boxes interlock along the axes of a, then of b.
  const double abs_cos = ::fabs(cos), abs_sin = ::fabs(sin), room = 1 - kTouching;
  const double reach_x = ax + abs_cos * b.half_length + abs_sin * b.half_width;
  const double reach_y = ay + abs_sin * b.half_length + abs_cos * b.half_width;
  const double reach_u = b.half_length + abs_cos * ax + abs_sin * ay;
  const double reach_v = b.half_width + abs_sin * ax + abs_cos * ay;
  const double depth_a = smaller(reach_x * room - ::fabs(x), reach_y * room - ::fabs(y));
  const double depth_b = smaller(reach_u * room - ::fabs(x * cos + y * sin),
                                 reach_v * room - ::fabs(y * cos - x * sin));
  const double limited = clamped(area, 0, smaller(a.area(), b.area()));
  const double known = smaller(depth_a, depth_b) > 0 ? limited : 0;
  return is_finite(dx + dy) ? known : kNotANumber;
}

struct Corner {
  double x, y;
};

// Twice the area of the triangle a, b, c; positive if it turns left.
P3D_GEOMETRY double turn_of(const Corner &a, const Corner &b, const Corner &c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

// Area of the convex hull of two footprints: Andrew's monotone chain over the
// eight corners (Information Processing Letters 9(5), 1979), in the frame of a.
P3D_GEOMETRY double hull_area(const Footprint &a, const Footprint &b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  if (!is_finite(dx + dy)) return kNotANumber;
  const double x = dx * a.cos + dy * a.sin, y = dy * a.cos - dx * a.sin;
  const double cos = a.cos * b.cos + a.sin * b.sin, sin = a.cos * b.sin - a.sin * b.cos;
  const double ux = cos * b.half_length, uy = sin * b.half_length;
  const double vx = -sin * b.half_width, vy = cos * b.half_width;
  const double ax = a.half_length, ay = a.half_width;
  Corner corners[8] = {{-ax, -ay},
                       {-ax, ay},
                       {ax, -ay},
                       {ax, ay},
                       {x + ux + vx, y + uy + vy},
                       {x - ux + vx, y - uy + vy},
                       {x - ux - vx, y - uy - vy},
                       {x + ux - vx, y + uy - vy}};
  for (int i = 4; i < 8; ++i) {  // insertion sort by x, then y; the corners of a are in order
    const Corner corner = corners[i];
    int slot = i;
    for (; slot > 0; --slot) {
      const Corner &before = corners[slot - 1];
      if (before.x < corner.x || (before.x == corner.x && before.y <= corner.y)) break;
      corners[slot] = before;
    }
    corners[slot] = corner;
  }
  double area = 0;
  for (int side = 0; side < 2; ++side) {  // lower chain left to right, upper chain back
    Corner chain[8];
    int count = 0;
    for (int i = 0; i < 8; ++i) {
      const Corner &corner = corners[side == 0 ? i : 7 - i];
      while (count > 1 && turn_of(chain[count - 2], chain[count - 1], corner) <= 0) --count;
      chain[count++] = corner;
    }
    for (int i = 1; i < count; ++i) {
      area += chain[i - 1].x * chain[i].y - chain[i].x * chain[i - 1].y;
    }
  }
  return larger(0.5 * area, larger(a.area(), b.area()));
}

P3D_GEOMETRY double ratio_or_zero(double part, double whole) {
  return whole == 0 ? 0 : part / whole;
}

// IoU minus the share of the enclosing region outside the union (Rezatofighi et
// al., CVPR 2019); IoU alone where that region is empty.
P3D_GEOMETRY double generalized_iou(double intersection, double whole, double enclosing) {
  return ratio_or_zero(intersection, whole) - ratio_or_zero(enclosing - whole, enclosing);
}

// One measure of two boxes whose footprints share `area`; NaN if a number it
// depends on is not finite.
P3D_GEOMETRY double measure_overlap(const RotatedBox &a, const RotatedBox &b, double area,
                                    BoxMeasure measure) {
  if (measure == BoxMeasure::kOverlap || !is_finite(area)) return area;
  if (measure == BoxMeasure::kIouBev) return ratio_or_zero(area, a.area() + b.area() - area);
  if (measure == BoxMeasure::kGiouBev) {
    return generalized_iou(area, a.area() + b.area() - area, hull_area(a, b));
  }
  if (!is_finite(a.top + b.top)) return kNotANumber;
  const double shared = smaller(a.top, b.top) - larger(a.bottom, b.bottom);
  const double volume = area * larger(shared, 0);
  const double whole = a.area() * a.height() + b.area() * b.height() - volume;
  if (measure == BoxMeasure::kIou3d) return ratio_or_zero(volume, whole);
  const double span = larger(a.top, b.top) - smaller(a.bottom, b.bottom);
  return generalized_iou(volume, whole, hull_area(a, b) * span);
}

P3D_GEOMETRY double measure_boxes(const RotatedBox &a, const RotatedBox &b, BoxMeasure measure) {
  return measure_overlap(a, b, overlap_area(a, b), measure);
}

}  // namespace perception3d
