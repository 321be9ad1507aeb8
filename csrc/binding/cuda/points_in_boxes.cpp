#include "cuda/points_in_boxes.h"

#include <tuple>

#include "binding/boxes.h"
#include "binding/cuda/device.h"
#include "cuda/device_sort.h"

namespace perception3d {
namespace {

template <typename T>
std::tuple<Tensor, Tensor> find(DeviceCall& call, const Tensor& points, const Tensor& boxes,
                                double margin) {
  const int64_t counts = cuda::member_counts(points.size(0), boxes.size(0));
  STD_TORCH_CHECK(counts <= INT32_MAX,
                  "points_in_boxes: points x boxes must be below 2^31 x 128, got ", points.size(0),
                  " x ", boxes.size(0));
  cuda::PointsInBoxes<T> work;
  work.points = data_of<T>(points);
  work.num_points = points.size(0);
  work.num_columns = points.size(1);
  work.boxes = data_of<T>(boxes);
  work.num_boxes = boxes.size(0);
  work.margin = margin;
  work.containers = call.workspace<BoxContainer>(boxes.size(0));
  work.members_before = call.workspace<int64_t>(counts);
  work.scratch_bytes = cuda::sum_workspace_bytes(counts);
  work.scratch = call.workspace<char>(work.scratch_bytes);
  call.check_status(cuda::count_members(work, call.stream()));
  const int64_t members = call.read<1>(work.members_before + counts - 1)[0];
  Tensor box_of_member = call.allocate({members}, ScalarType::Long);
  Tensor point_of_member = call.allocate({members}, ScalarType::Long);
  if (members > 0) {
    call.check_status(cuda::write_members(work, mutable_data_of<int64_t>(box_of_member),
                                          mutable_data_of<int64_t>(point_of_member),
                                          call.stream()));
  }
  return {box_of_member, point_of_member};
}

std::tuple<Tensor, Tensor> points_in_boxes(const Tensor& points, const Tensor& boxes,
                                           double margin) {
  const char* op = "points_in_boxes";
  DeviceCall call(op, points);
  check_points_and_boxes(op, call, points, boxes, margin);
  const auto run = points.scalar_type() == ScalarType::Float ? &find<float> : &find<double>;
  return run(call, points, boxes, margin);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("points_in_boxes", TORCH_BOX(&points_in_boxes));
}

}  // namespace perception3d
