// Depth-wise sub-manifold convolution: several kernel shapes on groups of channels at once.
#pragma once

#include <cstdint>
#include <vector>

#include "common/depthwise_group.h"

namespace perception3d {

// Where a table names a row that does not exist; group < 0: nowhere.
struct NeighbourFault {
  int64_t group, row;
};

template <typename Scalar>
NeighbourFault depthwise_conv(const DepthwiseConv<Scalar>& conv, const Scalar* features,
                              Scalar* result, int threads);

// grad_features (rows, columns), or null if nobody asks; grad_weight: (taps, channels) of each
// group, or empty.  Relies on the symmetry of the tables.  Equal for any number of threads.
template <typename Scalar>
NeighbourFault depthwise_conv_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                       const Scalar* features, Scalar* grad_features,
                                       const std::vector<Scalar*>& grad_weight, int threads);

}  // namespace perception3d
