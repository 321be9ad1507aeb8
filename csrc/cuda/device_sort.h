// Sorts and running sums over all threads of the device; the one place that calls CUB.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace perception3d {
namespace cuda {

// Key is uint32_t or uint64_t.  count < 2^31.

template <typename Key>
int64_t sort_workspace_bytes(int64_t count);

// Stable: equal keys keep their order.  Only the lowest `key_bits` bits of the keys are looked at.
// Source and target must be different memory.
template <typename Key>
Status device_sort_pairs(const Key* keys, Key* sorted_keys, const int32_t* values,
                         int32_t* sorted_values, int64_t count, int key_bits, void* workspace,
                         int64_t workspace_bytes, Stream stream);

int64_t sum_workspace_bytes(int64_t count);

// sums[i] = numbers[0] + ... + numbers[i - 1]; sums may be numbers.
Status device_exclusive_sum(const int64_t* numbers, int64_t* sums, int64_t count, void* workspace,
                            int64_t workspace_bytes, Stream stream);

// Bits that tell the numbers 0 .. bound - 1 apart.
inline int bits_below(int64_t bound) {
  int bits = 0;
  while (bits < 63 && (int64_t{1} << bits) < bound) ++bits;
  return bits;
}

}  // namespace cuda
}  // namespace perception3d
