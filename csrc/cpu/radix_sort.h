// Least-significant-digit radix sort.
#pragma once

#include <cstdint>
#include <vector>

namespace perception3d {

// Sorts values stably by the `key_bits` bits from bit `first_bit` on.
void radix_sort(std::vector<uint64_t>& values, int first_bit, int key_bits, int threads);

}  // namespace perception3d
