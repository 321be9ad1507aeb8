#include "common/launch.cuh"
#include "cuda/box_overlap.h"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 32;  // of a, in a tile of the matrix
constexpr int kColumns = 64;
constexpr int kPairs = kRows * kColumns;

int64_t blocks_for(int64_t items) { return (items + kThreads - 1) / kThreads; }

struct Circle {
  double x, y, radius;
};

// A box whose z matters and is not finite becomes unknown: its measures are NaN.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    prepare_boxes(const T* rows, int64_t count, bool looks_at_z, RotatedBox* boxes) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  RotatedBox box = make_rotated_box(rows + i * 7);
  if (looks_at_z && !is_finite(box.top)) box.x = kNotANumber;
  boxes[i] = box;
}

// A tile of pairs: all of them are tested by their circles, and those left, often few, are dealt
// out to the threads again.  GIoU looks at every pair.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    measure_tile(const RotatedBox* boxes_a, int64_t num_a, const RotatedBox* boxes_b, int64_t num_b,
                 BoxMeasure measure, T* result) {
  P3D_SHARED(Circle, circle_a, kRows);
  P3D_SHARED(Circle, circle_b, kColumns);
  P3D_SHARED(uint16_t, near, kPairs);
  P3D_SHARED(int, num_near, 1);
  const int64_t tiles = (num_b + kColumns - 1) / kColumns;
  const int64_t first_a = blockIdx.x / tiles * kRows, first_b = blockIdx.x % tiles * kColumns;
  const int rows = static_cast<int>(min(num_a - first_a, static_cast<int64_t>(kRows)));
  const int columns = static_cast<int>(min(num_b - first_b, static_cast<int64_t>(kColumns)));
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) *num_near = 0;
  if (thread < rows) {
    const RotatedBox& box = boxes_a[first_a + thread];
    circle_a[thread] = {box.x, box.y, box.radius};
  }
  if (thread < columns) {
    const RotatedBox& box = boxes_b[first_b + thread];
    circle_b[thread] = {box.x, box.y, box.radius};
  }
  __syncthreads();

  const bool all = measure == BoxMeasure::kGiouBev || measure == BoxMeasure::kGiou3d;
  for (int pair = thread; pair < kPairs; pair += kThreads) {
    const int row = pair / kColumns, column = pair % kColumns;
    if (row >= rows || column >= columns) continue;
    const Circle& a = circle_a[row];
    const Circle& b = circle_b[column];
    if (all || may_overlap(a.x, a.y, a.radius, b.x, b.y, b.radius)) {
      near[atomicAdd(num_near, 1)] = static_cast<uint16_t>(pair);
    } else {
      result[(first_a + row) * num_b + first_b + column] = T{0};
    }
  }
  __syncthreads();

  for (int i = thread; i < *num_near; i += kThreads) {
    const int row = near[i] / kColumns, column = near[i] % kColumns;
    const RotatedBox a = boxes_a[first_a + row], b = boxes_b[first_b + column];
    const bool meet = may_overlap(a.x, a.y, a.radius, b.x, b.y, b.radius);
    const double area = meet ? overlap_area(a, b) : 0.0;
    result[(first_a + row) * num_b + first_b + column] =
        static_cast<T>(measure_overlap(a, b, area, measure));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    measure_pair(const T* boxes_a, const T* boxes_b, int64_t count, BoxMeasure measure, T* result) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const RotatedBox a = make_rotated_box(boxes_a + i * 7);
  result[i] = static_cast<T>(measure_boxes(a, make_rotated_box(boxes_b + i * 7), measure));
}

}  // namespace

template <typename T>
Status measure_box_matrix(const T* boxes_a, int64_t num_a, const T* boxes_b, int64_t num_b,
                          BoxMeasure measure, RotatedBox* prepared_a, RotatedBox* prepared_b,
                          T* result, Stream stream) {
  if (num_a == 0 || num_b == 0) return nullptr;
  const bool looks_at_z = measure == BoxMeasure::kIou3d || measure == BoxMeasure::kGiou3d;
  Status status = launch(prepare_boxes<T>, blocks_for(num_a), kThreads, 0, stream, boxes_a, num_a,
                         looks_at_z, prepared_a);
  if (status != nullptr) return status;
  status = launch(prepare_boxes<T>, blocks_for(num_b), kThreads, 0, stream, boxes_b, num_b,
                  looks_at_z, prepared_b);
  if (status != nullptr) return status;
  const int64_t tiles = ((num_a + kRows - 1) / kRows) * ((num_b + kColumns - 1) / kColumns);
  return launch(measure_tile<T>, tiles, kThreads, 0, stream, prepared_a, num_a, prepared_b, num_b,
                measure, result);
}

template <typename T>
Status measure_box_pairs(const T* boxes_a, const T* boxes_b, int64_t count, BoxMeasure measure,
                         T* result, Stream stream) {
  return launch(measure_pair<T>, blocks_for(count), kThreads, 0, stream, boxes_a, boxes_b, count,
                measure, result);
}

#define P3D_INSTANTIATE(T)                                                             \
  template Status measure_box_matrix(const T*, int64_t, const T*, int64_t, BoxMeasure, \
                                     RotatedBox*, RotatedBox*, T*, Stream);            \
  template Status measure_box_pairs(const T*, const T*, int64_t, BoxMeasure, T*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
