// Points to voxels on CUDA: every point kept, or first come, first served.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "common/voxel_grid.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

struct PointRows {
  const float* points;  // (num_points, columns): x, y, z, ...
  int64_t columns;
  const int32_t* frame_of_point;  // (num_points), or null: all in frame 0
};

// Fills keys with the cell number of each point as cpu/voxelize.h has it, and groups the points.
// Points of a frame outside the batch are dropped.
template <typename Key>
Status group_points(const PointRows& points, const VoxelGrid& grid, const RowGroups<Key>& groups,
                    Stream stream);

// After group_points: voxel_of_point (num_points), coords (voxels, 4), order (kept), offsets
// (voxels + 1).
template <typename Key>
Status write_voxels(const VoxelGrid& grid, const RowGroups<Key>& groups, int64_t* voxel_of_point,
                    int32_t* coords, int64_t* order, int64_t* offsets, Stream stream);

// Scratch memory of hard voxelisation.
struct Arrivals {
  int64_t* voxels_before;   // (num_points + 1) voxels whose first point comes before each point
  int64_t* start_of_group;  // (num_points + 1) place of the first point of each cell
};

// After group_points; then voxels_before[num_points] is the number of cells with points.
template <typename Key>
Status number_arrivals(const RowGroups<Key>& groups, const Arrivals& arrivals, Stream stream);

// voxel_of_point (num_points), coords (voxels, 4), points_in_voxel (voxels) for the first
// max_voxels cells and the first max_points points of each.
template <typename Key>
Status write_hard_voxels(const VoxelGrid& grid, const RowGroups<Key>& groups,
                         const Arrivals& arrivals, int64_t max_points, int64_t max_voxels,
                         int64_t* voxel_of_point, int32_t* coords, int64_t* points_in_voxel,
                         Stream stream);

}  // namespace cuda
}  // namespace perception3d
