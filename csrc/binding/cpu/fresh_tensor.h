// New tensors for results that a kernel writes once.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "common/huge_pages.h"

namespace perception3d {

// Uninitialised, with the dtype and device of `like`, in large pages where that is
// possible.
inline torch::stable::Tensor fresh_tensor(const torch::stable::Tensor& like,
                                          const std::vector<int64_t>& sizes) {
  torch::stable::Tensor result = torch::stable::new_empty(like, sizes);
  if (result.numel() > 0) {
    prefer_huge_pages(result.mutable_data_ptr(),
                      result.numel() * static_cast<int64_t>(result.element_size()));
  }
  return result;
}

}  // namespace perception3d
