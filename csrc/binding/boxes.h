// What the shells of box operators of all devices check.
#pragma once

#include "common/check.h"
#include "common/rotated_box.h"

namespace perception3d {

// The measure of a number, for boxes (A, 7) and (B, 7), as many of both if they are `aligned`.
// Call is a CpuCall or a DeviceCall.
template <typename Call>
BoxMeasure checked_measure(const char* op, Call& call, const Tensor& boxes_a, const Tensor& boxes_b,
                           int64_t number, bool aligned) {
  const ScalarType dtype = boxes_a.scalar_type();
  check_floating(op, "boxes_a", boxes_a);
  call.check_input("boxes_a", boxes_a, dtype, 2);
  call.check_input("boxes_b", boxes_b, dtype, 2);
  check_size(op, "boxes_a", boxes_a, 1, 7);
  check_size(op, "boxes_b", boxes_b, 1, 7);
  const int64_t last = static_cast<int64_t>(BoxMeasure::kGiou3d);
  STD_TORCH_CHECK(number >= 0 && number <= last, op, ": measure must be 0 to ", last, ", got ",
                  number);
  if (aligned) check_size(op, "boxes_b", boxes_b, 0, boxes_a.size(0));
  return static_cast<BoxMeasure>(number);
}

// points (P, >= 3) and boxes (K, 7).
template <typename Call>
void check_points_and_boxes(const char* op, Call& call, const Tensor& points, const Tensor& boxes,
                            double margin) {
  const ScalarType dtype = points.scalar_type();
  check_floating(op, "points", points);
  call.check_input("points", points, dtype, 2);
  call.check_input("boxes", boxes, dtype, 2);
  check_size(op, "boxes", boxes, 1, 7);
  STD_TORCH_CHECK(points.size(1) >= 3, op, ": points must have at least 3 columns, got ",
                  points.size(1));
  STD_TORCH_CHECK(margin >= 0, op, ": margin must be >= 0, got ", margin);
}

}  // namespace perception3d
