#include "common/launch.cuh"
#include "cuda/device_sort.h"

#if defined(P3D_SIMT)
#include <algorithm>
#include <numeric>
#include <vector>
#else
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif

namespace perception3d {
namespace cuda {

#if defined(P3D_SIMT)

template <typename Key>
int64_t sort_workspace_bytes(int64_t count) {
  return count > 0 ? 16 : 0;
}

template <typename Key>
Status device_sort_pairs(const Key* keys, Key* sorted_keys, const int32_t* values,
                         int32_t* sorted_values, int64_t count, int key_bits, void*, int64_t,
                         Stream) {
  const size_t key_bytes = count * sizeof(Key), value_bytes = count * sizeof(int32_t);
  for (const Status status :
       {simt::host_reads(keys, key_bytes), simt::host_reads(values, value_bytes),
        simt::host_writes(sorted_keys, key_bytes), simt::host_writes(sorted_values, value_bytes)}) {
    if (status != nullptr) return status;
  }
  const Key mask =
      key_bits < static_cast<int>(8 * sizeof(Key)) ? (Key{1} << key_bits) - 1 : ~Key{0};
  std::vector<int64_t> places(count);
  std::iota(places.begin(), places.end(), int64_t{0});
  std::stable_sort(places.begin(), places.end(),
                   [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
  for (int64_t i = 0; i < count; ++i) {
    sorted_keys[i] = keys[places[i]];
    sorted_values[i] = values[places[i]];
  }
  return nullptr;
}

int64_t sum_workspace_bytes(int64_t count) { return count > 0 ? 16 : 0; }

Status device_exclusive_sum(const int64_t* numbers, int64_t* sums, int64_t count, void*, int64_t,
                            Stream) {
  const Status status = simt::host_reads(numbers, count * sizeof(int64_t));
  if (status != nullptr) return status;
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t number = numbers[i];
    sums[i] = total;
    total += number;
  }
  return simt::host_writes(sums, count * sizeof(int64_t));
}

#else

template <typename Key>
int64_t sort_workspace_bytes(int64_t count) {
  size_t bytes = 0;
  const Key* keys = nullptr;
  const int32_t* values = nullptr;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, const_cast<Key*>(keys), values,
                                  const_cast<int32_t*>(values), static_cast<int>(count));
  return static_cast<int64_t>(bytes);
}

template <typename Key>
Status device_sort_pairs(const Key* keys, Key* sorted_keys, const int32_t* values,
                         int32_t* sorted_values, int64_t count, int key_bits, void* workspace,
                         int64_t workspace_bytes, Stream stream) {
  if (count == 0) return nullptr;
  size_t bytes = static_cast<size_t>(workspace_bytes);
  return status_of(cub::DeviceRadixSort::SortPairs(workspace, bytes, keys, sorted_keys, values,
                                                   sorted_values, static_cast<int>(count), 0,
                                                   key_bits, stream));
}

int64_t sum_workspace_bytes(int64_t count) {
  size_t bytes = 0;
  const int64_t* numbers = nullptr;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, numbers, const_cast<int64_t*>(numbers),
                                static_cast<int>(count));
  return static_cast<int64_t>(bytes);
}

Status device_exclusive_sum(const int64_t* numbers, int64_t* sums, int64_t count, void* workspace,
                            int64_t workspace_bytes, Stream stream) {
  if (count == 0) return nullptr;
  size_t bytes = static_cast<size_t>(workspace_bytes);
  return status_of(cub::DeviceScan::ExclusiveSum(workspace, bytes, numbers, sums,
                                                 static_cast<int>(count), stream));
}

#endif

#define P3D_INSTANTIATE(Key)                                                                  \
  template int64_t sort_workspace_bytes<Key>(int64_t);                                        \
  template Status device_sort_pairs(const Key*, Key*, const int32_t*, int32_t*, int64_t, int, \
                                    void*, int64_t, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
