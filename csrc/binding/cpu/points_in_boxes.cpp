#include "cpu/points_in_boxes.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/row_numbers.h"
#include "common/check.h"

namespace perception3d {
namespace {

template <typename T>
BoxMembers run(const Tensor &points, const Tensor &boxes, double margin, int threads) {
  return find_points_in_boxes(points.const_data_ptr<T>(), points.size(0), points.size(1),
                              boxes.const_data_ptr<T>(), boxes.size(0), margin, threads);
}

std::tuple<Tensor, Tensor> points_in_boxes(const Tensor &points, const Tensor &boxes,
                                           double margin) {
  const ScalarType dtype = points.scalar_type();
  check_cpu("points_in_boxes", "points", points, dtype, 2);
  check_floating("points_in_boxes", "points", points);
  check_cpu("points_in_boxes", "boxes", boxes, dtype, 2);
  check_size("points_in_boxes", "boxes", boxes, 1, 7);
  STD_TORCH_CHECK(points.size(1) >= 3, "points_in_boxes: points must have at least 3 columns, got ",
                  points.size(1));
  STD_TORCH_CHECK(margin >= 0, "points_in_boxes: margin must be >= 0, got ", margin);
  const int threads = thread_count();
  const auto find = dtype == ScalarType::Float ? &run<float> : &run<double>;
  const BoxMembers members = find(points, boxes, margin, threads);
  return {to_tensor(members.box_of_member, points), to_tensor(members.point_of_member, points)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("points_in_boxes", TORCH_BOX(&points_in_boxes));
}

}  // namespace perception3d
