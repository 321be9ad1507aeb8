#include "binding/cuda/device.h"

#include <algorithm>
#include <cstring>
#include <string>

#if defined(P3D_SIMT)
#include "testing/machine.h"
#endif

namespace perception3d {

#if defined(P3D_SIMT)
namespace {

// Tells the interpreter of what a tensor spans from `first` on along its dimensions from `dim` on.
// A slot is kept for every number in between, so views with huge gaps are told piece by piece.
void register_view(const char* name, const Tensor& tensor, int64_t dim, int64_t first) {
  constexpr int64_t kWhole = int64_t{1} << 26;
  int64_t extent = 1;
  for (int64_t i = dim; i < tensor.dim(); ++i) extent += (tensor.size(i) - 1) * tensor.stride(i);
  if (extent > kWhole && dim < tensor.dim()) {
    for (int64_t i = 0; i < tensor.size(dim); ++i) {
      register_view(name, tensor, dim + 1, first + i * tensor.stride(dim));
    }
    return;
  }
  const size_t granule = static_cast<size_t>(tensor.element_size());
  const char* begin = static_cast<const char*>(tensor.const_data_ptr()) + first * granule;
  simt::memory_map().add(begin, extent * granule, {name, granule, false, true, false});
}

}  // namespace
#endif

void DeviceCall::check_input(const char* name, const Tensor& tensor, ScalarType dtype,
                             int64_t rank) {
  check_layout(op_, name, tensor, dtype, rank);
  check_view(name, tensor, dtype, rank);
}

void DeviceCall::check_view(const char* name, const Tensor& tensor, ScalarType dtype,
                            int64_t rank) {
  STD_TORCH_CHECK(tensor.device() == first_.device(), op_, ": ", name,
                  " must lie on the device of the other tensors");
  check_kind(op_, name, tensor, dtype, rank);
#if defined(P3D_SIMT)
  if (tensor.numel() > 0) register_view(name, tensor, 0, 0);
#endif
}

void DeviceCall::check_status(Status status) const {
  STD_TORCH_CHECK(status == nullptr, op_, ": ", status);
}

void* DeviceCall::workspace_bytes(int64_t bytes, size_t alignment) {
  scratch_.push_back(torch::stable::new_empty(first_, {bytes}, ScalarType::Byte));
  void* memory = scratch_.back().mutable_data_ptr();
#if defined(P3D_SIMT)
  std::memset(memory, 0xff, bytes);
  const std::string name = "workspace " + std::to_string(scratch_.size());
  simt::memory_map().add(memory, bytes, {name, alignment, true, false, false});
#else
  static_cast<void>(alignment);
#endif
  return memory;
}

#if defined(P3D_SIMT)

DeviceCall::DeviceCall(const char* op, const Tensor& first)
    : op_(op), first_(first), lock_(simt::machine().lock), buffers_(simt::memory_map().count()) {
  STD_TORCH_CHECK(first.is_cpu(), op, ": tensors of perception3d_simt must lie on the CPU");
}

DeviceCall::~DeviceCall() { simt::memory_map().drop_to(buffers_); }

Tensor DeviceCall::allocate(torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  Tensor result = torch::stable::new_empty(first_, sizes, dtype);
  const size_t granule = static_cast<size_t>(std::max<int64_t>(1, result.element_size()));
  // What no kernel writes is NaN, or a number that no table holds.
  const bool real = dtype == ScalarType::Float || dtype == ScalarType::Double ||
                    dtype == ScalarType::BFloat16 || dtype == ScalarType::Half;
  std::memset(result.mutable_data_ptr(), real ? 0xff : 0xa5, result.numel() * granule);
  const std::string name = "output " + std::to_string(simt::memory_map().count() - buffers_);
  simt::memory_map().add(result.mutable_data_ptr(), result.numel() * granule,
                         {name, granule, true, false, false});
  return result;
}

#else

namespace {

Stream current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<Stream>(stream);
}

}  // namespace

DeviceCall::DeviceCall(const char* op, const Tensor& first)
    : op_(op),
      first_(first),
      stream_(current_stream(first.get_device_index())),
      guard_(first.get_device_index()) {
  STD_TORCH_CHECK(first.is_cuda(), op, ": tensors must lie on a CUDA device");
}

DeviceCall::~DeviceCall() = default;

Tensor DeviceCall::allocate(torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  return torch::stable::new_empty(first_, sizes, dtype);
}

#endif

}  // namespace perception3d
