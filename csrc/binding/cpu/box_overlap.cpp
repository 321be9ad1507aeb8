#include "cpu/box_overlap.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

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
  const ScalarType dtype = boxes_a.scalar_type();
  check_cpu("box_overlap", "boxes_a", boxes_a, dtype, 2);
  check_cpu("box_overlap", "boxes_b", boxes_b, dtype, 2);
  check_size("box_overlap", "boxes_a", boxes_a, 1, 7);
  check_size("box_overlap", "boxes_b", boxes_b, 1, 7);
  check_floating("box_overlap", "boxes_a", boxes_a);
  const int64_t last = static_cast<int64_t>(BoxMeasure::kGiou3d);
  STD_TORCH_CHECK(number >= 0 && number <= last, "box_overlap: measure must be 0 to ", last,
                  ", got ", number);
  if (aligned) check_size("box_overlap", "boxes_b", boxes_b, 0, boxes_a.size(0));
  Tensor result = aligned ? torch::stable::new_empty(boxes_a, {boxes_a.size(0)})
                          : torch::stable::new_empty(boxes_a, {boxes_a.size(0), boxes_b.size(0)});
  const auto run = dtype == ScalarType::Float ? &measure<float> : &measure<double>;
  run(boxes_a, boxes_b, static_cast<BoxMeasure>(number), aligned, result);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("box_overlap", TORCH_BOX(&box_overlap)); }

}  // namespace perception3d
