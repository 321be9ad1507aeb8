#include "cuda/row_groups.cuh"
#include "cuda/window_partition.h"

namespace perception3d {
namespace cuda {
namespace {

// One axis of the grid; c + offset is never negative, so that unsigned division is floor division.
struct Axis {
  uint32_t extent, size, offset;
  int64_t step;
};

struct Axes {
  Axis z, y, x;
  int64_t batch_size, frame_step;
};

Axis make_axis(const WindowGrid& grid, int axis) {
  const int64_t size = grid.window[axis];
  return {static_cast<uint32_t>(grid.spatial_shape[axis]), static_cast<uint32_t>(size),
          static_cast<uint32_t>(grid.shift[axis] - grid.first_window(axis) * size),
          grid.step(axis)};
}

// The part of a window number that an axis gives; cell gets the place inside the window.
__device__ __forceinline__ int64_t window_on(const Axis& axis, int32_t coordinate, int32_t* cell) {
  check_index(coordinate, axis.extent, "window_partition: coords");
  const uint32_t inside = static_cast<uint32_t>(coordinate) < axis.extent ? coordinate : 0;
  const uint32_t window = (inside + axis.offset) / axis.size;
  *cell = static_cast<int32_t>(inside + axis.offset - window * axis.size);
  return window * axis.step;
}

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    find_windows(const int32_t* coords, Axes axes, RowGroups<Key> groups, int32_t* cell_in_window) {
  const int64_t voxel = item_of_thread();
  if (voxel >= groups.num_rows) return;
  const int32_t* row = coords + 4 * voxel;
  int32_t* cell = cell_in_window + 3 * voxel;
  check_index(row[0], axes.batch_size, "window_partition: coords");
  const int64_t frame = row[0] >= 0 && row[0] < axes.batch_size ? row[0] : 0;
  const int64_t key = frame * axes.frame_step + window_on(axes.z, row[1], cell) +
                      window_on(axes.y, row[2], cell + 1) + window_on(axes.x, row[3], cell + 2);
  groups.keys[voxel] = static_cast<Key>(key);
  groups.rows[voxel] = static_cast<int32_t>(voxel);
}

struct NoNumbers {
  template <typename Key>
  __device__ void operator()(int64_t, Key) const {}
};

}  // namespace

template <typename Key>
Status group_voxels(const int32_t* coords, const WindowGrid& grid, const RowGroups<Key>& groups,
                    int32_t* cell_in_window, Stream stream) {
  const Axes axes{make_axis(grid, 0), make_axis(grid, 1), make_axis(grid, 2), grid.batch_size,
                  grid.step(3)};
  const Status status = launch(find_windows<Key>, blocks_for(groups.num_rows), kGroupThreads, 0,
                               stream, coords, axes, groups, cell_in_window);
  return status != nullptr ? status : group_rows(groups, stream);
}

template <typename Key>
Status write_windows(const RowGroups<Key>& groups, int64_t* window_of_voxel, int64_t* order,
                     int64_t* offsets, Stream stream) {
  return launch_write_groups(groups, NoNumbers{}, order, offsets, window_of_voxel, stream);
}

#define P3D_INSTANTIATE(Key)                                                                       \
  template Status group_voxels(const int32_t*, const WindowGrid&, const RowGroups<Key>&, int32_t*, \
                               Stream);                                                            \
  template Status write_windows(const RowGroups<Key>&, int64_t*, int64_t*, int64_t*, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
