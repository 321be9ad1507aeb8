// What dynamic and hard voxelisation check on the CPU.
#pragma once

#include <limits>

#include "binding/grids.h"
#include "common/check.h"

namespace perception3d {

inline void check_points(const char* op, const Tensor& points) {
  check_cpu(op, "points", points, ScalarType::Float, 2);
  STD_TORCH_CHECK(points.size(1) >= 3, op, ": points must have at least 3 columns, got ",
                  points.size(1));
  STD_TORCH_CHECK(points.size(0) < std::numeric_limits<int32_t>::max(), op,
                  ": points must be fewer than 2^31 - 1, got ", points.size(0));
}

}  // namespace perception3d
