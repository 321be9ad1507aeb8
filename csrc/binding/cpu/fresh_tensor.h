// New tensors for results that a kernel writes once.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace perception3d {

// Uninitialised, on the CPU, with the dtype of `like`; large ones in memory that earlier results
// have left behind.
torch::stable::Tensor fresh_tensor(const torch::stable::Tensor& like,
                                   const std::vector<int64_t>& sizes);

}  // namespace perception3d
