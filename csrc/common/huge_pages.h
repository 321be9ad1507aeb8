// Large results in large pages.
#pragma once

#include <sys/mman.h>

#include <cstdint>

namespace perception3d {

constexpr int64_t kHugePage = int64_t{1} << 21;

// Asks for 2 MiB pages under memory that is about to be written for the first time.  The C library
// returns large blocks to the system as they are freed, so a result of tens of megabytes touches
// fresh pages in every call; 4 KiB at a time that takes longer than the kernels that fill it.
// A wish only: systems without such pages, or with the setting "never", pass over it.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
  const auto first = reinterpret_cast<intptr_t>(memory);
  const int64_t begin = (first + kHugePage - 1) / kHugePage * kHugePage;
  const int64_t end = (first + bytes) / kHugePage * kHugePage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace perception3d
