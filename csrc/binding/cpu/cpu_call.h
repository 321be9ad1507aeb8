// What the torch shells of the CPU kernels share.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "common/check.h"

namespace perception3d {

inline int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

// One call of an operator: the checks of DeviceCall (binding/cuda/device.h) for tensors on the CPU,
// so that the shells of all devices can share theirs.
struct CpuCall {
  const char* op;

  void check_input(const char* name, const Tensor& tensor, ScalarType dtype, int64_t rank) const {
    check_cpu(op, name, tensor, dtype, rank);
  }

  void check_view(const char* name, const Tensor& tensor, ScalarType dtype, int64_t rank) const {
    STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " must lie on the CPU");
    check_kind(op, name, tensor, dtype, rank);
  }
};

}  // namespace perception3d
