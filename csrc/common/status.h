// What launchers of CUDA kernels take and return, free of torch and CUDA headers.
#pragma once

struct CUstream_st;

namespace perception3d {

using Stream = CUstream_st*;  // cudaStream_t

// Null, or a text that says what went wrong and lives until the next launch of this thread.
using Status = const char*;

}  // namespace perception3d
