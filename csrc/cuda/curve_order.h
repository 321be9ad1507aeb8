// Cells along a space-filling curve on CUDA, see cpu/curve_order.h.
#pragma once

#include <cstdint>

#include "common/space_curve.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// index: (count).  Cells outside the cube are looked for in P3D_DEBUG builds only.
Status curve_index(const int32_t* coords, int64_t count, const SpaceCurve& curve, int64_t* index,
                   Stream stream);

// Keys to sort by frame, then index, and the numbers 0 .. count - 1.
Status curve_keys(const int32_t* coords, int64_t count, int64_t batch_size, const SpaceCurve& curve,
                  uint64_t* keys, int32_t* rows, Stream stream);

// From sorted keys and rows: order, inverse, and offsets (batch_size + 1).
Status write_curve_order(const uint64_t* sorted_keys, const int32_t* sorted_rows, int64_t count,
                         int64_t batch_size, const SpaceCurve& curve, int64_t* order,
                         int64_t* inverse, int64_t* offsets, Stream stream);

}  // namespace cuda
}  // namespace perception3d
