// Memory of freed results, kept for the next ones.
#pragma once

#include <cstdint>

namespace perception3d {

struct ResultBlock {
  void* memory;
  int64_t bytes;
};

// At least `bytes` bytes in large pages.  Null where they are better left to the C library: few
// bytes, nothing to be had from the system, or P3D_KEEP_MIB=0.
ResultBlock take_result_memory(int64_t bytes);

// Keeps a block for later.  Beyond P3D_KEEP_MIB mebibytes, what was given back first returns to the
// system.
void give_back_result_memory(const ResultBlock& block);

}  // namespace perception3d
