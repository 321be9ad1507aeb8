// Curves from the numbers that an operator is called with, for the shells of all devices.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/space_curve.h"

namespace perception3d {

inline SpaceCurve space_curve(const char* op, int64_t rank, int64_t shift, bool hilbert) {
  STD_TORCH_CHECK(rank >= 1 && rank <= kMaxCurveRank, op, ": rank must be in 1..", kMaxCurveRank,
                  ", got ", rank);
  STD_TORCH_CHECK(shift >= INT32_MIN && shift <= INT32_MAX, op, ": shift must fit 32 bits, got ",
                  shift);
  return {static_cast<int>(rank), shift, hilbert};
}

inline void check_frame_count(const char* op, int64_t batch_size) {
  STD_TORCH_CHECK(batch_size >= 0 && batch_size <= INT32_MAX, op, ": batch_size must be in 0..",
                  INT32_MAX, ", got ", batch_size);
}

}  // namespace perception3d
