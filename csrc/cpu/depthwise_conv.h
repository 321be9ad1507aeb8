// Depth-wise sub-manifold convolution: several kernel shapes on groups of channels at once.
#pragma once

#include <cstdint>
#include <vector>

namespace perception3d {

// One kernel and the channels first .. first + channels - 1 that it works on.
template <typename Scalar>
struct DepthwiseGroup {
  const int32_t* neighbours;  // (rows, taps), the table of subm_index
  const Scalar* weight;       // (taps, channels)
  int64_t taps, first, channels;
};

// Features (rows, columns); groups share no channel.  Channels of no group are passed on.  With
// `residual` the features are added to the result.
template <typename Scalar>
struct DepthwiseConv {
  int64_t rows, columns;
  bool residual;
  std::vector<DepthwiseGroup<Scalar>> groups;
};

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
