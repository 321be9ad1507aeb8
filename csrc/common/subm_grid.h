// Where voxels lie and which neighbours a convolution looks at.
#pragma once

#include <cstdint>

namespace perception3d {

constexpr int64_t kMostTaps = 32768;

// Sizes in order z, y, x.  Every kernel size is odd; there are at most kMostTaps taps, and fewer
// than 2^62 cells in all frames.
struct SubmGrid {
  int64_t batch_size;
  int64_t spatial_shape[3];
  int64_t kernel[3];

  int64_t num_taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

}  // namespace perception3d
