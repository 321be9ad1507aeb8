#include "binding/cpu/fresh_tensor.h"

#include <torch/csrc/stable/ops.h>

#include "binding/cpu/result_memory.h"
#include "common/huge_pages.h"

// Of torch 2.11 and later; null in 2.10, for which the library is built.
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset,
    int32_t dtype, int32_t device_type, int32_t device_index, AtenTensorHandle* result,
    int32_t layout, const uint8_t* opaque_metadata, int64_t opaque_metadata_size,
    void (*deleter)(void* data, void* context), void* context);

namespace perception3d {
namespace {

using torch::stable::Tensor;

void give_back(void* memory, void* bytes) {
  give_back_result_memory({memory, reinterpret_cast<intptr_t>(bytes)});
}

Tensor tensor_in(const ResultBlock& block, const Tensor& like, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t axis = sizes.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * sizes[axis];
  constexpr int32_t kNoIndex = -1;
  int32_t dtype = 0;
  AtenTensorHandle result = nullptr;
  if (aoti_torch_get_dtype(like.get(), &dtype) != AOTI_TORCH_SUCCESS ||
      torch_from_blob(block.memory, static_cast<int64_t>(sizes.size()), sizes.data(),
                      strides.data(), 0, dtype, aoti_torch_device_type_cpu(), kNoIndex, &result,
                      aoti_torch_layout_strided(), nullptr, 0, &give_back,
                      reinterpret_cast<void*>(block.bytes)) != AOTI_TORCH_SUCCESS) {
    give_back_result_memory(block);
    STD_TORCH_CHECK(false, "torch made no tensor of ", block.bytes, " bytes of kept memory");
  }
  return Tensor(result);
}

// 0 where that is no number: torch then says so.
int64_t bytes_of(const Tensor& like, const std::vector<int64_t>& sizes) {
  int64_t bytes = static_cast<int64_t>(like.element_size());
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return 0;
  }
  return bytes;
}

}  // namespace

Tensor fresh_tensor(const Tensor& like, const std::vector<int64_t>& sizes) {
  const int64_t bytes = bytes_of(like, sizes);
  if (torch_from_blob != nullptr) {
    const ResultBlock block = take_result_memory(bytes);
    if (block.memory != nullptr) return tensor_in(block, like, sizes);
  }
  Tensor result = torch::stable::new_empty(like, sizes);
  if (bytes > 0) prefer_huge_pages(result.mutable_data_ptr(), bytes);
  return result;
}

}  // namespace perception3d
