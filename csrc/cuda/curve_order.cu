#include "common/launch.cuh"
#include "cuda/curve_order.h"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kThreads = 256;

Grid grid_of(int64_t count) { return Grid((count + kThreads - 1) / kThreads); }

__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__device__ __forceinline__ uint64_t index_of_row(const int32_t* coords, int64_t row,
                                                 const SpaceCurve& curve) {
  uint64_t cell[3], index;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t place = coords[4 * row + 1 + axis] + curve.shift;
    check_index(place, int64_t{1} << curve.rank, "curve_order: coords plus the shift");
    cell[axis] = static_cast<uint64_t>(place);
  }
  index_on_curve<uint64_t>(cell[0], cell[1], cell[2], curve, index);
  return index;
}

__global__ void __launch_bounds__(kThreads)
    find_index(const int32_t* coords, int64_t count, SpaceCurve curve, int64_t* index) {
  const int64_t row = thread_index();
  if (row < count) index[row] = static_cast<int64_t>(index_of_row(coords, row, curve));
}

__global__ void __launch_bounds__(kThreads)
    find_keys(const int32_t* coords, int64_t count, int64_t batch_size, SpaceCurve curve,
              uint64_t* keys, int32_t* rows) {
  const int64_t row = thread_index();
  if (row >= count) return;
  const int64_t frame = coords[4 * row];
  check_index(frame, batch_size, "curve_order: frames");
  keys[row] = static_cast<uint64_t>(frame) << (3 * curve.rank) | index_of_row(coords, row, curve);
  rows[row] = static_cast<int32_t>(row);
}

__global__ void __launch_bounds__(kThreads)
    write_tables(const uint64_t* sorted_keys, const int32_t* sorted_rows, int64_t count,
                 int64_t batch_size, SpaceCurve curve, int64_t* order, int64_t* inverse,
                 int64_t* offsets) {
  const int64_t place = thread_index();
  if (place < count) {
    const int64_t row = sorted_rows[place];
    order[place] = row;
    inverse[row] = place;
  }
  if (place > batch_size) return;
  // The first place whose frame is `place` or a later one.
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(sorted_keys[middle] >> (3 * curve.rank)) < place) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  offsets[place] = low;
}

}  // namespace

Status curve_index(const int32_t* coords, int64_t count, const SpaceCurve& curve, int64_t* index,
                   Stream stream) {
  return launch(find_index, grid_of(count), kThreads, 0, stream, coords, count, curve, index);
}

Status curve_keys(const int32_t* coords, int64_t count, int64_t batch_size, const SpaceCurve& curve,
                  uint64_t* keys, int32_t* rows, Stream stream) {
  return launch(find_keys, grid_of(count), kThreads, 0, stream, coords, count, batch_size, curve,
                keys, rows);
}

Status write_curve_order(const uint64_t* sorted_keys, const int32_t* sorted_rows, int64_t count,
                         int64_t batch_size, const SpaceCurve& curve, int64_t* order,
                         int64_t* inverse, int64_t* offsets, Stream stream) {
  const int64_t threads = count > batch_size + 1 ? count : batch_size + 1;
  return launch(write_tables, grid_of(threads), kThreads, 0, stream, sorted_keys, sorted_rows,
                count, batch_size, curve, order, inverse, offsets);
}

}  // namespace cuda
}  // namespace perception3d
