// The grid of cells that points are sorted into.
#pragma once

#include <cstdint>

namespace perception3d {

struct VoxelGrid {
  int64_t batch_size;
  float voxel_size[3];  // x, y, z, m
  float lower[3];       // x, y, z, m
  int64_t cells[3];     // x, y, z; at most 2^24 each, so that float tells them apart
  bool check_z;         // false: z is not looked at, z index 0

  // A number above every cell number, which ascend by (b, x, y, z).
  int64_t key_bound() const { return batch_size * cells[0] * cells[1] * cells[2]; }
};

}  // namespace perception3d
