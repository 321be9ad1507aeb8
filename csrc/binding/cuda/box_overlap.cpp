#include "cuda/box_overlap.h"

#include "binding/boxes.h"
#include "binding/cuda/device.h"

namespace perception3d {
namespace {

template <typename T>
void measure(DeviceCall& call, const Tensor& boxes_a, const Tensor& boxes_b, BoxMeasure measure,
             bool aligned, Tensor& result) {
  const T *a = data_of<T>(boxes_a), *b = data_of<T>(boxes_b);
  const int64_t num_a = boxes_a.size(0), num_b = boxes_b.size(0);
  T* out = mutable_data_of<T>(result);
  if (aligned) {
    call.check_status(cuda::measure_box_pairs(a, b, num_a, measure, out, call.stream()));
    return;
  }
  RotatedBox* prepared_a = call.workspace<RotatedBox>(num_a);
  RotatedBox* prepared_b = call.workspace<RotatedBox>(num_b);
  call.check_status(cuda::measure_box_matrix(a, num_a, b, num_b, measure, prepared_a, prepared_b,
                                             out, call.stream()));
}

Tensor box_overlap(const Tensor& boxes_a, const Tensor& boxes_b, int64_t number, bool aligned) {
  const char* op = "box_overlap";
  DeviceCall call(op, boxes_a);
  const BoxMeasure kind = checked_measure(op, call, boxes_a, boxes_b, number, aligned);
  const ScalarType dtype = boxes_a.scalar_type();
  Tensor result = aligned ? call.allocate({boxes_a.size(0)}, dtype)
                          : call.allocate({boxes_a.size(0), boxes_b.size(0)}, dtype);
  const auto run = dtype == ScalarType::Float ? &measure<float> : &measure<double>;
  run(call, boxes_a, boxes_b, kind, aligned, result);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("box_overlap", TORCH_BOX(&box_overlap));
}

}  // namespace perception3d
