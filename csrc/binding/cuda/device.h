// What the torch shells of the CUDA kernels share.  Compiled twice: by nvcc for the dispatch key
// CUDA of library perception3d, and by g++ with P3D_SIMT for CPU tensors of library
// perception3d_simt, where kernels run on the interpreter and every buffer is known to the byte.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstdint>
#include <vector>

#include "binding/library_name.h"
#include "binding/storage_types.h"
#include "common/check.h"
#include "common/status.h"
#include "cuda/copy_to_host.h"

#if defined(P3D_SIMT)
#include <mutex>
#define P3D_DEVICE_KEY CPU
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#define P3D_DEVICE_KEY CUDA
#endif

namespace perception3d {

// One call of an operator on the device of its first tensor: checks inputs, allocates, knows the
// stream.  Made at the start of the operator and kept until its last launch.
class DeviceCall {
 public:
  DeviceCall(const char* op, const Tensor& first);
  ~DeviceCall();
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  // Every tensor that a kernel reads: on this device, of this dtype and rank, contiguous.
  void check_input(const char* name, const Tensor& tensor, ScalarType dtype, int64_t rank);

  // The same for a tensor that is read in place whatever its strides are; the caller has checked
  // those that its kernel relies on.
  void check_view(const char* name, const Tensor& tensor, ScalarType dtype, int64_t rank);

  // A result.
  Tensor allocate(torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype);

  // Scratch memory for `count` numbers, free again when the call ends.
  template <typename T>
  T* workspace(int64_t count) {
    return static_cast<T*>(workspace_bytes(count * static_cast<int64_t>(sizeof(T)), alignof(T)));
  }

  Stream stream() const { return stream_; }

  // Raises a RuntimeError unless the launches went well.
  void check_status(Status status) const;

  // Numbers that a kernel wrote.  Waits for the device: once per operator, for a result's size.
  template <int kCount>
  std::array<int64_t, kCount> read(const int64_t* numbers) const {
    std::array<int64_t, kCount> result;
    check_status(copy_numbers_to_host(numbers, kCount, result.data(), stream_));
    return result;
  }

 private:
  void* workspace_bytes(int64_t bytes, size_t alignment);

  const char* op_;
  Tensor first_;
  Stream stream_ = nullptr;
  std::vector<Tensor> scratch_;
#if defined(P3D_SIMT)
  std::unique_lock<std::recursive_mutex> lock_;
  size_t buffers_;
#else
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

}  // namespace perception3d
