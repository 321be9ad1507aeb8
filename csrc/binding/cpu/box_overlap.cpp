#include "cpu/box_overlap.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "binding/boxes.h"
#include "binding/cpu/cpu_call.h"
#include "common/check.h"

namespace perception3d {
namespace {

template <typename T>
void measure(const Tensor &boxes_a, const Tensor &boxes_b, BoxMeasure measure, bool aligned,
             Tensor &result) {
  const int threads = thread_count();
  const T *a = boxes_a.const_data_ptr<T>(), *b = boxes_b.const_data_ptr<T>();
  T *out = result.mutable_data_ptr<T>();
  if (aligned) {
    measure_box_pairs(a, b, boxes_a.size(0), measure, out, threads);
  } else {
    measure_box_matrix(a, boxes_a.size(0), b, boxes_b.size(0), measure, out, threads);
  }
}

Tensor box_overlap(const Tensor &boxes_a, const Tensor &boxes_b, int64_t number, bool aligned) {
  const char *op = "box_overlap";
  const CpuCall call{op};
  const BoxMeasure kind = checked_measure(op, call, boxes_a, boxes_b, number, aligned);
  Tensor result = aligned ? torch::stable::new_empty(boxes_a, {boxes_a.size(0)})
                          : torch::stable::new_empty(boxes_a, {boxes_a.size(0), boxes_b.size(0)});
  const auto run = boxes_a.scalar_type() == ScalarType::Float ? &measure<float> : &measure<double>;
  run(boxes_a, boxes_b, kind, aligned, result);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("box_overlap", TORCH_BOX(&box_overlap)); }

}  // namespace perception3d
