// First-come voxelisation with limits on voxels and on points per voxel.
#pragma once

#include <cstdint>
#include <vector>

namespace perception3d {

// key_of_point (num_points): cell number or -1, as voxel_keys writes it.  Voxels are numbered in
// order of first appearance; once max_voxels exist, points that would open another are dropped, and
// so are points beyond max_points of a voxel.  Overwrites key_of_point with the voxel of each
// point, -1 for dropped ones; appends key and number of points of each voxel.
void hard_voxelize(int64_t* key_of_point, int64_t num_points, int64_t max_points,
                   int64_t max_voxels, std::vector<int64_t>& voxel_keys,
                   std::vector<int64_t>& num_points_of_voxel);

}  // namespace perception3d
