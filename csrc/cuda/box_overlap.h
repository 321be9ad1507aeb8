// Overlap, IoU and GIoU of upright boxes turned about z, on CUDA.  See cpu/box_overlap.h.
#pragma once

#include <cstdint>

#include "common/rotated_box.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

// Boxes are rows x, y, z, dx, dy, dz, yaw of T = float or double.
//
// Fills result (num_a, num_b).  prepared_a, prepared_b: memory for num_a and num_b boxes.
template <typename T>
Status measure_box_matrix(const T* boxes_a, int64_t num_a, const T* boxes_b, int64_t num_b,
                          BoxMeasure measure, RotatedBox* prepared_a, RotatedBox* prepared_b,
                          T* result, Stream stream);

// Fills result (count): box i of a with box i of b.
template <typename T>
Status measure_box_pairs(const T* boxes_a, const T* boxes_b, int64_t count, BoxMeasure measure,
                         T* result, Stream stream);

}  // namespace cuda
}  // namespace perception3d
