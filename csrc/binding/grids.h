// Grids from the numbers that an operator is called with, for the shells of all devices.
#pragma once

#include <vector>

#include "common/check.h"
#include "common/strided_grid.h"
#include "common/subm_grid.h"
#include "common/voxel_grid.h"
#include "common/window_grid.h"

namespace perception3d {

inline VoxelGrid voxel_grid(const char* op, int64_t batch_size,
                            const std::vector<double>& voxel_size, const std::vector<double>& lower,
                            const std::vector<int64_t>& grid_size, bool check_z) {
  STD_TORCH_CHECK(voxel_size.size() == 3 && lower.size() == 3 && grid_size.size() == 3, op,
                  ": voxel_size, lower and grid_size must have 3 entries");
  VoxelGrid grid{batch_size, {}, {}, {}, check_z};
  double keys = static_cast<double>(batch_size);
  for (int axis = 0; axis < 3; ++axis) {
    STD_TORCH_CHECK(grid_size[axis] >= 1, op, ": grid_size must be >= 1, got ", grid_size[axis]);
    grid.voxel_size[axis] = static_cast<float>(voxel_size[axis]);
    grid.lower[axis] = static_cast<float>(lower[axis]);
    grid.cells[axis] = grid_size[axis];
    keys *= static_cast<double>(grid_size[axis]);
  }
  STD_TORCH_CHECK(keys < 9e18, op, ": the cells of all frames must be fewer than 2^63");
  return grid;
}

inline WindowGrid window_grid(int64_t batch_size, const std::vector<int64_t>& spatial_shape,
                              const std::vector<int64_t>& window, const std::vector<int64_t>& shift,
                              bool x_slowest) {
  STD_TORCH_CHECK(spatial_shape.size() == 3 && window.size() == 3 && shift.size() == 3,
                  "window_partition: spatial_shape, window and shift must have 3 entries");
  WindowGrid grid{batch_size, {}, {}, {}, x_slowest};
  double windows = static_cast<double>(batch_size);  // at most
  for (int axis = 0; axis < 3; ++axis) {
    STD_TORCH_CHECK(spatial_shape[axis] >= 1 && window[axis] >= 1,
                    "window_partition: spatial_shape and window must be >= 1");
    grid.spatial_shape[axis] = spatial_shape[axis];
    grid.window[axis] = window[axis];
    grid.shift[axis] = shift[axis];
    windows *= static_cast<double>(spatial_shape[axis]) / static_cast<double>(window[axis]) + 2;
  }
  STD_TORCH_CHECK(windows < 9e18, "window_partition: the windows of all frames must be fewer than ",
                  "2^63");
  return grid;
}

inline SubmGrid subm_grid(int64_t batch_size, const std::vector<int64_t>& spatial_shape,
                          const std::vector<int64_t>& kernel) {
  STD_TORCH_CHECK(spatial_shape.size() == 3 && kernel.size() == 3,
                  "subm_index: spatial_shape and kernel must have 3 entries");
  SubmGrid grid{batch_size, {}, {}};
  double cells = static_cast<double>(batch_size), taps = 1;
  for (int axis = 0; axis < 3; ++axis) {
    STD_TORCH_CHECK(spatial_shape[axis] >= 1 && kernel[axis] >= 1 && kernel[axis] % 2 == 1,
                    "subm_index: spatial_shape must be >= 1, kernel odd");
    grid.spatial_shape[axis] = spatial_shape[axis];
    grid.kernel[axis] = kernel[axis];
    cells *= static_cast<double>(spatial_shape[axis]);
    taps *= static_cast<double>(kernel[axis]);
  }
  STD_TORCH_CHECK(cells < 4.6e18 && taps <= kMostTaps,
                  "subm_index: there may be 2^62 - 1 cells and ", kMostTaps, " taps at most");
  return grid;
}

inline StridedGrid strided_grid(int64_t batch_size, const std::vector<int64_t>& spatial_shape,
                                const std::vector<int64_t>& kernel,
                                const std::vector<int64_t>& stride,
                                const std::vector<int64_t>& padding) {
  STD_TORCH_CHECK(
      spatial_shape.size() == 3 && kernel.size() == 3 && stride.size() == 3 && padding.size() == 3,
      "sparse_index: spatial_shape, kernel, stride and padding must have 3 entries");
  STD_TORCH_CHECK(batch_size >= 1, "sparse_index: batch_size must be >= 1");
  StridedGrid grid{batch_size, {}, {}, {}, {}};
  int64_t cells = batch_size, taps = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t limit = INT32_MAX;
    STD_TORCH_CHECK(spatial_shape[axis] >= 1 && spatial_shape[axis] <= limit && kernel[axis] >= 1 &&
                        kernel[axis] <= limit && stride[axis] >= 1 && stride[axis] <= limit &&
                        padding[axis] >= 0 && padding[axis] <= limit,
                    "sparse_index: sizes must be >= 1, padding >= 0, all at most 2^31 - 1");
    grid.spatial_shape[axis] = spatial_shape[axis];
    grid.kernel[axis] = kernel[axis];
    grid.stride[axis] = stride[axis];
    grid.padding[axis] = padding[axis];
    STD_TORCH_CHECK(spatial_shape[axis] + 2 * padding[axis] >= kernel[axis],
                    "sparse_index: the kernel is larger than the padded grid");
    int64_t size = grid.output_shape(axis);
    if (axis == 2) size = (size + kStridedLine - 1) / kStridedLine * kStridedLine;
    const bool fits = size <= limit && !__builtin_mul_overflow(cells, size, &cells) &&
                      !__builtin_mul_overflow(taps, kernel[axis], &taps);
    STD_TORCH_CHECK(fits && cells < int64_t{1} << 62 && taps <= kMostTaps,
                    "sparse_index: there may be 2^62 - 1 output cells and ", kMostTaps,
                    " taps at most");
  }
  return grid;
}

}  // namespace perception3d
