#include "cpu/depthwise_conv.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/storage_types.h"
#include "common/check.h"

namespace perception3d {
namespace {

int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

template <typename Scalar>
DepthwiseConv<Scalar> checked_conv(const char* op, const Tensor& features,
                                   const std::vector<Tensor>& neighbours,
                                   const std::vector<Tensor>& weights,
                                   const std::vector<int64_t>& first_channels, bool residual) {
  check_cpu(op, "features", features, features.scalar_type(), 2);
  const int64_t rows = features.size(0), columns = features.size(1);
  STD_TORCH_CHECK(rows < INT32_MAX, op, ": there must be fewer than 2^31 - 1 voxels");
  const size_t groups = neighbours.size();
  STD_TORCH_CHECK(weights.size() == groups && first_channels.size() == groups, op,
                  ": every table needs a weight and a first channel");
  DepthwiseConv<Scalar> conv{rows, columns, residual, {}};
  std::vector<bool> taken(columns);
  for (size_t i = 0; i < groups; ++i) {
    check_cpu(op, "neighbours", neighbours[i], ScalarType::Int, 2);
    check_cpu(op, "weight", weights[i], features.scalar_type(), 2);
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
    conv.groups.push_back({neighbours[i].const_data_ptr<int32_t>(), data_of<Scalar>(weights[i]),
                           taps, first, channels});
  }
  return conv;
}

void check_fault(const char* op, const NeighbourFault& fault, int64_t rows) {
  STD_TORCH_CHECK(fault.group < 0, op, ": neighbours must be -1 or in 0..", rows - 1, ", table ",
                  fault.group, " is not in row ", fault.row);
}

Tensor conv(const Tensor& features, std::vector<Tensor> neighbours, std::vector<Tensor> weights,
            std::vector<int64_t> first_channels, bool residual) {
  const char* op = "depthwise_conv";
  Tensor result = torch::stable::new_empty(features, {features.size(0), features.size(1)});
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv =
        checked_conv<Scalar>(op, features, neighbours, weights, first_channels, residual);
    const NeighbourFault fault = depthwise_conv(conv, data_of<Scalar>(features),
                                                mutable_data_of<Scalar>(result), thread_count());
    check_fault(op, fault, conv.rows);
  });
  return result;
}

std::tuple<Tensor, std::vector<Tensor>> conv_backward(const Tensor& grad, const Tensor& features,
                                                      std::vector<Tensor> neighbours,
                                                      std::vector<Tensor> weights,
                                                      std::vector<int64_t> first_channels,
                                                      bool residual, bool needs_features,
                                                      bool needs_weights) {
  const char* op = "depthwise_conv_backward";
  check_cpu(op, "grad", grad, features.scalar_type(), 2);
  check_size(op, "grad", grad, 0, features.size(0));
  check_size(op, "grad", grad, 1, features.size(1));
  Tensor grad_features =
      torch::stable::new_empty(grad, {needs_features ? grad.size(0) : 0, grad.size(1)});
  std::vector<Tensor> grad_weights;
  for (const Tensor& weight : weights) {
    const int64_t taps = needs_weights ? weight.size(0) : 0;
    grad_weights.push_back(torch::stable::new_empty(weight, {taps, weight.size(1)}));
  }
  dispatch_storage(op, features, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const auto conv =
        checked_conv<Scalar>(op, features, neighbours, weights, first_channels, residual);
    std::vector<Scalar*> targets;
    for (Tensor& target : grad_weights) {
      if (needs_weights) targets.push_back(mutable_data_of<Scalar>(target));
    }
    if (!needs_features && targets.empty()) return;
    const NeighbourFault fault = depthwise_conv_backward(
        conv, data_of<Scalar>(grad), data_of<Scalar>(features),
        needs_features ? mutable_data_of<Scalar>(grad_features) : nullptr, targets, thread_count());
    check_fault(op, fault, conv.rows);
  });
  return {grad_features, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("depthwise_conv", TORCH_BOX(&conv));
  m.impl("depthwise_conv_backward", TORCH_BOX(&conv_backward));
}

}  // namespace perception3d
