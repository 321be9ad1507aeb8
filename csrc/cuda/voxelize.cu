#include "cuda/row_groups.cuh"
#include "cuda/voxelize.h"

namespace perception3d {
namespace cuda {
namespace {

// floor((p - lower) / size) in IEEE arithmetic, whatever the flags; -1 outside 0 .. cells - 1.  NaN
// and infinite numbers are outside.
__device__ __forceinline__ int64_t cell_of(float p, float lower, float size, int64_t cells) {
  const float cell = __fdiv_rn(__fsub_rn(p, lower), size);
  return cell >= 0.0f && cell < static_cast<float>(cells) ? static_cast<int64_t>(cell) : -1;
}

__device__ __forceinline__ bool is_finite(float p) { return p - p == 0.0f; }

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    find_cells(PointRows points, VoxelGrid grid, RowGroups<Key> groups) {
  const int64_t point = item_of_thread();
  if (point >= groups.num_rows) return;
  const float* p = points.points + point * points.columns;
  const int64_t frame = points.frame_of_point == nullptr ? 0 : points.frame_of_point[point];
  check_index(frame, grid.batch_size, "voxelize: frame_of_point");
  const int64_t x = cell_of(p[0], grid.lower[0], grid.voxel_size[0], grid.cells[0]);
  const int64_t y = cell_of(p[1], grid.lower[1], grid.voxel_size[1], grid.cells[1]);
  const int64_t z = grid.check_z ? cell_of(p[2], grid.lower[2], grid.voxel_size[2], grid.cells[2])
                                 : (is_finite(p[2]) ? 0 : -1);
  const bool keep = x >= 0 && y >= 0 && z >= 0 && frame >= 0 && frame < grid.batch_size;
  const int64_t key = ((frame * grid.cells[0] + x) * grid.cells[1] + y) * grid.cells[2] + z;
  groups.keys[point] = keep ? static_cast<Key>(key) : groups.dropped;
  groups.rows[point] = static_cast<int32_t>(point);
}

// Writes the row b, z, y, x of a cell number.
struct WriteCoords {
  VoxelGrid grid;
  int32_t* coords;

  template <typename Key>
  __device__ void operator()(int64_t voxel, Key key) const {
    const Key z_cells = static_cast<Key>(grid.cells[2]), y_cells = static_cast<Key>(grid.cells[1]);
    const Key x_cells = static_cast<Key>(grid.cells[0]);
    const Key column = key / z_cells, line = column / y_cells;
    coords[4 * voxel] = static_cast<int32_t>(line / x_cells);
    coords[4 * voxel + 1] = static_cast<int32_t>(key % z_cells);
    coords[4 * voxel + 2] = static_cast<int32_t>(column % y_cells);
    coords[4 * voxel + 3] = static_cast<int32_t>(line % x_cells);
  }
};

// voxels_before: 1 for points that open a voxel, to be summed up; filled with zeros before.
template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    mark_arrivals(RowGroups<Key> groups, Arrivals arrivals) {
  const int64_t place = item_of_thread();
  if (place >= groups.num_rows) return;
  if (place == 0) arrivals.start_of_group[groups.totals()[0]] = groups.totals()[1];
  if (!starts_group(groups, place)) return;
  arrivals.voxels_before[groups.sorted_rows[place]] = 1;
  arrivals.start_of_group[group_of_place(groups, place)] = place;
}

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    fill_hard_voxels(RowGroups<Key> groups, Arrivals arrivals, WriteCoords write_coords,
                     int64_t max_points, int64_t max_voxels, int64_t* voxel_of_point,
                     int64_t* points_in_voxel) {
  const int64_t place = item_of_thread();
  if (place >= groups.num_rows) return;
  const int64_t point = groups.sorted_rows[place];
  const Key key = groups.sorted_keys[place];
  voxel_of_point[point] = -1;
  if (key == groups.dropped) return;
  const int64_t group = group_of_place(groups, place);
  const int64_t start = arrivals.start_of_group[group];
  const int64_t voxel = arrivals.voxels_before[groups.sorted_rows[start]];
  if (voxel >= max_voxels) return;
  if (place - start < max_points) voxel_of_point[point] = voxel;
  if (place != start) return;
  points_in_voxel[voxel] = min(arrivals.start_of_group[group + 1] - start, max_points);
  write_coords(voxel, key);
}

}  // namespace

template <typename Key>
Status group_points(const PointRows& points, const VoxelGrid& grid, const RowGroups<Key>& groups,
                    Stream stream) {
  const Status status = launch(find_cells<Key>, blocks_for(groups.num_rows), kGroupThreads, 0,
                               stream, points, grid, groups);
  return status != nullptr ? status : group_rows(groups, stream);
}

template <typename Key>
Status write_voxels(const VoxelGrid& grid, const RowGroups<Key>& groups, int64_t* voxel_of_point,
                    int32_t* coords, int64_t* order, int64_t* offsets, Stream stream) {
  return launch_write_groups(groups, WriteCoords{grid, coords}, order, offsets, voxel_of_point,
                             stream);
}

template <typename Key>
Status number_arrivals(const RowGroups<Key>& groups, const Arrivals& arrivals, Stream stream) {
  const size_t bytes = static_cast<size_t>(groups.num_rows + 1) * sizeof(int64_t);
  Status status = fill_bytes(arrivals.voxels_before, 0, bytes, stream);
  if (status != nullptr) return status;
  status = launch(mark_arrivals<Key>, blocks_for(groups.num_rows), kGroupThreads, 0, stream, groups,
                  arrivals);
  if (status != nullptr) return status;
  return device_exclusive_sum(arrivals.voxels_before, arrivals.voxels_before, groups.num_rows + 1,
                              groups.scratch, groups.scratch_bytes, stream);
}

template <typename Key>
Status write_hard_voxels(const VoxelGrid& grid, const RowGroups<Key>& groups,
                         const Arrivals& arrivals, int64_t max_points, int64_t max_voxels,
                         int64_t* voxel_of_point, int32_t* coords, int64_t* points_in_voxel,
                         Stream stream) {
  return launch(fill_hard_voxels<Key>, blocks_for(groups.num_rows), kGroupThreads, 0, stream,
                groups, arrivals, WriteCoords{grid, coords}, max_points, max_voxels, voxel_of_point,
                points_in_voxel);
}

#define P3D_INSTANTIATE(Key)                                                                       \
  template Status group_points(const PointRows&, const VoxelGrid&, const RowGroups<Key>&, Stream); \
  template Status write_voxels(const VoxelGrid&, const RowGroups<Key>&, int64_t*, int32_t*,        \
                               int64_t*, int64_t*, Stream);                                        \
  template Status number_arrivals(const RowGroups<Key>&, const Arrivals&, Stream);                 \
  template Status write_hard_voxels(const VoxelGrid&, const RowGroups<Key>&, const Arrivals&,      \
                                    int64_t, int64_t, int64_t*, int32_t*, int64_t*, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
