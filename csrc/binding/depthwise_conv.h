// The groups of a depth-wise convolution from its arguments, for the shells of all devices.
#pragma once

#include <vector>

#include "common/check.h"
#include "common/depthwise_group.h"

namespace perception3d {

// Call is a CpuCall or a DeviceCall.
template <typename Scalar, typename Call>
DepthwiseConv<Scalar> depthwise_conv_of(const char* op, Call& call, const Tensor& features,
                                        const std::vector<Tensor>& neighbours,
                                        const std::vector<Tensor>& weights,
                                        const std::vector<int64_t>& first_channels, bool residual) {
  call.check_input("features", features, features.scalar_type(), 2);
  const int64_t rows = features.size(0), columns = features.size(1);
  STD_TORCH_CHECK(rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  const size_t groups = neighbours.size();
  STD_TORCH_CHECK(weights.size() == groups && first_channels.size() == groups, op,
                  ": every table needs a weight and a first channel");
  DepthwiseConv<Scalar> conv{rows, columns, residual, {}};
  std::vector<bool> taken(columns);
  for (size_t i = 0; i < groups; ++i) {
    call.check_input("neighbours", neighbours[i], ScalarType::Int, 2);
    call.check_input("weight", weights[i], features.scalar_type(), 2);
    const int64_t taps = neighbours[i].size(1), channels = weights[i].size(1);
    const int64_t first = first_channels[i];
    check_size(op, "neighbours", neighbours[i], 0, rows);
    check_size(op, "weight", weights[i], 0, taps);
    STD_TORCH_CHECK(first >= 0 && first <= columns - channels, op, ": channels ", first, " .. ",
                    first + channels - 1, " are not among ", columns);
    for (int64_t c = first; c < first + channels; ++c) {
      STD_TORCH_CHECK(!taken[c], op, ": channel ", c, " belongs to two kernels");
      taken[c] = true;
    }
    conv.groups.push_back({static_cast<const int32_t*>(neighbours[i].const_data_ptr()),
                           static_cast<const Scalar*>(weights[i].const_data_ptr()), taps, first,
                           channels});
  }
  return conv;
}

template <typename Call>
void check_depthwise_grad(const char* op, Call& call, const Tensor& grad, const Tensor& features) {
  call.check_input("grad", grad, features.scalar_type(), 2);
  check_size(op, "grad", grad, 0, features.size(0));
  check_size(op, "grad", grad, 1, features.size(1));
}

}  // namespace perception3d
