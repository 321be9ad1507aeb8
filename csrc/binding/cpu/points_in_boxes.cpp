#include "cpu/points_in_boxes.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/boxes.h"
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
  const char *op = "points_in_boxes";
  const CpuCall call{op};
  check_points_and_boxes(op, call, points, boxes, margin);
  const int threads = thread_count();
  const auto find = points.scalar_type() == ScalarType::Float ? &run<float> : &run<double>;
  const BoxMembers members = find(points, boxes, margin, threads);
  return {to_tensor(members.box_of_member, points), to_tensor(members.point_of_member, points)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("points_in_boxes", TORCH_BOX(&points_in_boxes));
}

}  // namespace perception3d
