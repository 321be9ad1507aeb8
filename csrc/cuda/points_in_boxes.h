// Which points lie in which boxes, on CUDA.  See cpu/points_in_boxes.h.
#pragma once

#include <cstdint>

#include "common/box_container.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

constexpr int64_t kPointsPerWarp = 128;

// Numbers in members_before, in which warps count their members of every box.
inline int64_t member_counts(int64_t num_points, int64_t num_boxes) {
  return num_boxes * ((num_points + kPointsPerWarp - 1) / kPointsPerWarp) + 1;
}

template <typename T>
struct PointsInBoxes {
  const T* points;  // num_points rows of num_columns numbers that begin with x, y, z
  int64_t num_points, num_columns;
  const T* boxes;  // rows x, y, z, dx, dy, dz, yaw
  int64_t num_boxes;
  double margin;
  BoxContainer* containers;  // (num_boxes)
  int64_t* members_before;   // (member_counts), by box, then warp; the last one is the total
  void* scratch;
  int64_t scratch_bytes;
};

// Fills members_before.
template <typename T>
Status count_members(const PointsInBoxes<T>& work, Stream stream);

// After count_members: both (total).
template <typename T>
Status write_members(const PointsInBoxes<T>& work, int64_t* box_of_member, int64_t* point_of_member,
                     Stream stream);

}  // namespace cuda
}  // namespace perception3d
