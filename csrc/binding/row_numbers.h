// Row numbers found by a kernel, as a tensor.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace perception3d {

// An int64 tensor on the CPU with the given numbers; `like` is any CPU tensor.
inline torch::stable::Tensor to_tensor(const std::vector<int64_t> &rows,
                                       const torch::stable::Tensor &like) {
  torch::stable::Tensor result = torch::stable::new_empty(like, {static_cast<int64_t>(rows.size())},
                                                          torch::headeronly::ScalarType::Long);
  std::copy(rows.begin(), rows.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace perception3d
