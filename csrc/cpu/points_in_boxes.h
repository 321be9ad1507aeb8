// Which points lie in which boxes.
#pragma once

#include <cstdint>
#include <vector>

namespace perception3d {

// Pairs of a box and a point inside it, ordered by box, then point.
struct BoxMembers {
  std::vector<int64_t> box_of_member, point_of_member;
};

// points: num_points rows of num_columns numbers that begin with x, y, z.
// boxes: rows x, y, z, dx, dy, dz, yaw.  In the frame of the box a member has
// |x|, |y| <= half, or < half + margin if margin > 0, and |z| <= half.  Points
// and boxes with a number that is not finite have no part in any pair.
template <typename T>
BoxMembers find_points_in_boxes(const T *points, int64_t num_points, int64_t num_columns,
                                const T *boxes, int64_t num_boxes, double margin, int threads);

}  // namespace perception3d
