// From the ends of chunks to the states between them.
#pragma once

#include "common/selective_scan.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Whether a chunk lets through what enters it, or begins with the first step of a sequence.
constexpr int32_t kNoCut = 0, kCut = 1, kCutAtOnce = 2;

// states: (chunks, N, D), in: what leaves each chunk when nothing enters it; out: what enters it.
// A chunk keeps exp(A s) of what enters, s being its sum of delta_sums (chunks, D), and nothing
// where cuts (chunks) says so; nothing enters where it is kCutAtOnce.  Forward, states enter chunk
// 0 first; backward, the last one.
Status carry_over_chunks(const ScanShape& shape, const float* A, const float* delta_sums,
                         const int32_t* cuts, bool backward, float* states, Stream stream);

}  // namespace cuda
}  // namespace perception3d
