// Where voxels lie and which outputs of a strided convolution see them.
#pragma once

#include <cstdint>

namespace perception3d {

// Output cells are numbered in lines along x that are filled up to multiples of this.
constexpr int64_t kStridedLine = 64;

// Sizes in order z, y, x, below 2^31; an output at cell o sees the cells o * stride - padding +
// tap.  There are at most kMostTaps taps (common/subm_grid.h), and fewer than 2^62 output cells in
// all frames, lines filled up.
struct StridedGrid {
  int64_t batch_size;
  int64_t spatial_shape[3], kernel[3], stride[3], padding[3];

  int64_t num_taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t output_shape(int axis) const {
    return (spatial_shape[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1;
  }
};

}  // namespace perception3d
