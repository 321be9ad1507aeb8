#include "cuda/rotated_nms.h"

#include <algorithm>

#include "binding/cuda/device.h"
#include "cuda/device_sort.h"

namespace perception3d {
namespace {

constexpr int64_t kNoLimit = -1;

void check_inputs(DeviceCall& call, const char* op, const char* name, const Tensor& rows,
                  int64_t columns, const Tensor& scores, int64_t post_max) {
  check_floating(op, name, rows);
  call.check_input(name, rows, rows.scalar_type(), 2);
  check_size(op, name, rows, 1, columns);
  call.check_input("scores", scores, rows.scalar_type(), 1);
  check_size(op, "scores", scores, 0, rows.size(0));
  STD_TORCH_CHECK(rows.size(0) < INT32_MAX, op, ": there must be fewer than 2^31 - 1 rows, got ",
                  rows.size(0));
  STD_TORCH_CHECK(post_max >= kNoLimit, op, ": post_max must be >= -1, got ", post_max);
}

// Ranks the rows and gets the memory of a suppression.
template <typename T>
cuda::Suppression prepare(DeviceCall& call, const Tensor& scores, int64_t pre_max,
                          int64_t post_max) {
  using Key = typename cuda::ScoreKey<T>::Type;
  const int64_t count = scores.size(0);
  cuda::Ranking<T> ranking;
  ranking.scores = data_of<T>(scores);
  ranking.count = count;
  ranking.keys = call.workspace<Key>(count);
  ranking.sorted_keys = call.workspace<Key>(count);
  ranking.rows = call.workspace<int32_t>(count);
  ranking.order = call.workspace<int32_t>(count);
  ranking.scratch_bytes = cuda::sort_workspace_bytes<Key>(count);
  ranking.scratch = call.workspace<char>(ranking.scratch_bytes);
  call.check_status(cuda::rank_scores(ranking, call.stream()));

  const int64_t candidates = pre_max == kNoLimit ? count : std::min(pre_max, count);
  cuda::Suppression work;
  work.order = ranking.order;
  work.num_candidates = candidates;
  work.most_kept = post_max == kNoLimit ? candidates : post_max;
  work.removed = call.workspace<uint64_t>(cuda::kChunkWords);
  work.mask = call.workspace<uint64_t>(cuda::kChunk * cuda::kChunkWords);
  work.kept = call.workspace<int32_t>(candidates);
  work.num_kept = call.workspace<int64_t>(1);
  return work;
}

Tensor kept_rows(DeviceCall& call, const cuda::Suppression& work) {
  const int64_t count = call.read<1>(work.num_kept)[0];
  Tensor rows = call.allocate({count}, ScalarType::Long);
  call.check_status(cuda::write_kept(work, count, mutable_data_of<int64_t>(rows), call.stream()));
  return rows;
}

template <typename T>
Tensor run_boxes(DeviceCall& call, const Tensor& boxes, const Tensor& scores, double iou_threshold,
                 int64_t pre_max, int64_t post_max) {
  const cuda::Suppression work = prepare<T>(call, scores, pre_max, post_max);
  RotatedBox* prepared = call.workspace<RotatedBox>(work.num_candidates);
  call.check_status(
      cuda::suppress_boxes(data_of<T>(boxes), iou_threshold, prepared, work, call.stream()));
  return kept_rows(call, work);
}

template <typename T>
Tensor run_centers(DeviceCall& call, const Tensor& centers, const Tensor& scores,
                   double squared_distance, int64_t post_max) {
  const cuda::Suppression work = prepare<T>(call, scores, kNoLimit, post_max);
  call.check_status(
      cuda::suppress_centers(data_of<T>(centers), squared_distance, work, call.stream()));
  return kept_rows(call, work);
}

Tensor rotated_nms(const Tensor& boxes, const Tensor& scores, double iou_threshold, int64_t pre_max,
                   int64_t post_max) {
  const char* op = "rotated_nms";
  DeviceCall call(op, boxes);
  check_inputs(call, op, "boxes", boxes, 7, scores, post_max);
  STD_TORCH_CHECK(iou_threshold >= 0, op, ": iou_threshold must be >= 0, got ", iou_threshold);
  STD_TORCH_CHECK(pre_max >= kNoLimit, op, ": pre_max must be >= -1, got ", pre_max);
  const bool single = boxes.scalar_type() == ScalarType::Float;
  const auto run = single ? &run_boxes<float> : &run_boxes<double>;
  return run(call, boxes, scores, iou_threshold, pre_max, post_max);
}

Tensor circle_nms(const Tensor& centers, const Tensor& scores, double squared_distance,
                  int64_t post_max) {
  const char* op = "circle_nms";
  DeviceCall call(op, centers);
  check_inputs(call, op, "centers", centers, 2, scores, post_max);
  const bool single = centers.scalar_type() == ScalarType::Float;
  const auto run = single ? &run_centers<float> : &run_centers<double>;
  return run(call, centers, scores, squared_distance, post_max);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("rotated_nms", TORCH_BOX(&rotated_nms));
  m.impl("circle_nms", TORCH_BOX(&circle_nms));
}

}  // namespace perception3d
