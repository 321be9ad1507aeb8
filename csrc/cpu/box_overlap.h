// Overlap, IoU and GIoU of upright boxes turned about z.
#pragma once

#include <cstdint>

#include "common/rotated_box.h"

namespace perception3d {

// Boxes are rows x, y, z, dx, dy, dz, yaw of T = float or double.
//
// Fills result (num_a, num_b): every box of a with every box of b.
template <typename T>
void measure_box_matrix(const T *boxes_a, int64_t num_a, const T *boxes_b, int64_t num_b,
                        BoxMeasure measure, T *result, int threads);

// Fills result (count): box i of a with box i of b.
template <typename T>
void measure_box_pairs(const T *boxes_a, const T *boxes_b, int64_t count, BoxMeasure measure,
                       T *result, int threads);

}  // namespace perception3d
