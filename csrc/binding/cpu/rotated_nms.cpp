#include "cpu/rotated_nms.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "binding/cpu/cpu_call.h"
#include "binding/row_numbers.h"
#include "common/check.h"

namespace perception3d {
namespace {

void check_inputs(const char *op, const char *name, const Tensor &rows, int64_t columns,
                  const Tensor &scores, int64_t post_max) {
  check_cpu(op, name, rows, rows.scalar_type(), 2);
  check_floating(op, name, rows);
  check_size(op, name, rows, 1, columns);
  check_cpu(op, "scores", scores, rows.scalar_type(), 1);
  check_size(op, "scores", scores, 0, rows.size(0));
  STD_TORCH_CHECK(post_max >= kNoLimit, op, ": post_max must be >= -1, got ", post_max);
}

template <typename T>
std::vector<int64_t> run_boxes(const Tensor &boxes, const Tensor &scores, double iou_threshold,
                               int64_t pre_max, int64_t post_max, int threads) {
  const std::vector<int64_t> order = order_by_score(scores.const_data_ptr<T>(), scores.size(0));
  return suppress_boxes(boxes.const_data_ptr<T>(), order, iou_threshold, pre_max, post_max,
                        threads);
}

template <typename T>
std::vector<int64_t> run_centers(const Tensor &centers, const Tensor &scores,
                                 double squared_distance, int64_t post_max, int threads) {
  const std::vector<int64_t> order = order_by_score(scores.const_data_ptr<T>(), scores.size(0));
  return suppress_centers(centers.const_data_ptr<T>(), order, squared_distance, post_max, threads);
}

Tensor rotated_nms(const Tensor &boxes, const Tensor &scores, double iou_threshold, int64_t pre_max,
                   int64_t post_max) {
  check_inputs("rotated_nms", "boxes", boxes, 7, scores, post_max);
  STD_TORCH_CHECK(iou_threshold >= 0, "rotated_nms: iou_threshold must be >= 0, got ",
                  iou_threshold);
  STD_TORCH_CHECK(pre_max >= kNoLimit, "rotated_nms: pre_max must be >= -1, got ", pre_max);
  const auto run =
      boxes.scalar_type() == ScalarType::Float ? &run_boxes<float> : &run_boxes<double>;
  const int threads = thread_count();
  return to_tensor(run(boxes, scores, iou_threshold, pre_max, post_max, threads), boxes);
}

Tensor circle_nms(const Tensor &centers, const Tensor &scores, double squared_distance,
                  int64_t post_max) {
  check_inputs("circle_nms", "centers", centers, 2, scores, post_max);
  const auto run =
      centers.scalar_type() == ScalarType::Float ? &run_centers<float> : &run_centers<double>;
  const int threads = thread_count();
  return to_tensor(run(centers, scores, squared_distance, post_max, threads), centers);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("rotated_nms", TORCH_BOX(&rotated_nms));
  m.impl("circle_nms", TORCH_BOX(&circle_nms));
}

}  // namespace perception3d
