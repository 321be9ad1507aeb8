#include "cuda/segment_fold.cuh"
#include "cuda/segment_reduce.h"

namespace perception3d {
namespace cuda {
namespace {

template <typename Scalar_>
struct SumFold {
  using Scalar = Scalar_;
  using Total = Compute<Scalar>;

  Scalar* sum;
  bool mean;

  __device__ static Total start() { return 0; }
  __device__ static void add(Total& total, const Scalar& value, int64_t) { total += load(value); }
  __device__ static void merge(Total& total, const Total& other) { total += other; }
  __device__ void write(const Total& total, int64_t rows, int64_t index) const {
    store(mean && rows > 0 ? total / static_cast<Total>(rows) : total, sum[index]);
  }
};

template <typename Scalar_>
struct MaxFold {
  using Scalar = Scalar_;
  using Number = Compute<Scalar>;
  struct Total {
    Number value;
    int32_t place;  // -1: no row yet
  };

  Scalar* maximum;
  int32_t* row_of_maximum;  // may be null
  const int64_t* order;

  __device__ static Total start() { return {0, -1}; }
  __device__ static void merge(Total& total, const Total& other) {
    const bool nan = total.value != total.value, other_nan = other.value != other.value;
    const bool greater = other.value > total.value || (other_nan && !nan);
    const bool equal = other.value == total.value || (other_nan && nan);
    const bool earlier = equal && other.place < total.place;
    if (other.place >= 0 && (total.place < 0 || greater || earlier)) total = other;
  }
  __device__ static void add(Total& total, const Scalar& value, int64_t place) {
    merge(total, {load(value), static_cast<int32_t>(place)});
  }
  __device__ void write(const Total& total, int64_t, int64_t index) const {
    store(total.value, maximum[index]);
    if (row_of_maximum == nullptr) return;
    row_of_maximum[index] = total.place < 0 ? -1 : static_cast<int32_t>(order[total.place]);
  }
};

// A block takes kTile places; it first looks up the segment of each.
template <typename Scalar, int kPack>
__global__ void __launch_bounds__(kThreads, 4)
    spread_gradient(const Scalar* grad, Segments segments, Layout layout, bool mean,
                    Scalar* grad_values) {
  static_assert(kThreads == kTile, "one thread looks up one place");
  P3D_SHARED(int64_t, segment_of, kTile);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t end = min(begin + kTile, segments.places);
  if (begin + threadIdx.x < end) {
    segment_of[threadIdx.x] =
        segment_of_place(segments.offsets, 0, segments.count - 1, begin + threadIdx.x);
  }
  __syncthreads();
  const int groups = kThreads / layout.lanes;
  for (int64_t place = begin + threadIdx.x / layout.lanes; place < end; place += groups) {
    const int64_t segment = segment_of[place - begin];
    const int64_t rows = segments.offsets[segment + 1] - segments.offsets[segment];
    const Compute<Scalar> divisor = mean ? static_cast<Compute<Scalar>>(rows) : 1;
    const int64_t row = segments.order[place];
    check_index(row, segments.num_rows, "segment_sum_backward: order");
    for (int64_t column = threadIdx.x % layout.lanes * kPack; column < layout.columns;
         column += layout.lanes * kPack) {
      auto numbers = load_packed<kPack>(grad + segment * layout.columns + column);
#pragma unroll
      for (int c = 0; c < kPack; ++c) store(load(numbers.number[c]) / divisor, numbers.number[c]);
      store_packed(numbers, grad_values + row * layout.columns + column);
    }
  }
}

// Rows are in one segment each, so no two threads write to one place.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads, 4)
    send_gradient(const Scalar* grad, const int32_t* row_of_maximum, int64_t count, int64_t columns,
                  int64_t num_rows, Scalar* grad_values) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count || row_of_maximum[index] < 0) return;
  check_index(row_of_maximum[index], num_rows, "segment_max_backward: row_of_maximum");
  grad_values[row_of_maximum[index] * columns + index % columns] = grad[index];
}

}  // namespace

template <typename Scalar>
int64_t segment_workspace_bytes(int64_t places, int64_t columns) {
  const int64_t tiles = places > kTile ? (places + kTile - 1) / kTile : 0;
  return 2 * tiles * columns * static_cast<int64_t>(sizeof(typename MaxFold<Scalar>::Total));
}

template <typename Scalar>
Status segment_sum(const Scalar* values, const Segments& segments, int64_t columns, bool mean,
                   Scalar* sum, void* workspace, Stream stream) {
  return fold_rows(SumFold<Scalar>{sum, mean}, values, segments, columns, workspace, stream);
}

template <typename Scalar>
Status segment_max(const Scalar* values, const Segments& segments, int64_t columns, Scalar* maximum,
                   int32_t* row_of_maximum, void* workspace, Stream stream) {
  return fold_rows(MaxFold<Scalar>{maximum, row_of_maximum, segments.order}, values, segments,
                   columns, workspace, stream);
}

template <typename Scalar>
Status segment_sum_backward(const Scalar* grad, const Segments& segments, int64_t columns,
                            bool mean, Scalar* grad_values, Stream stream) {
  const size_t bytes = static_cast<size_t>(segments.num_rows * columns) * sizeof(Scalar);
  const Status status =
      segments.places < segments.num_rows ? fill_bytes(grad_values, 0, bytes, stream) : nullptr;
  if (status != nullptr || columns == 0) return status;
  const int64_t tiles = (segments.places + kTile - 1) / kTile;
  constexpr int kWide = kPackedWidth<Scalar>;
  if (can_pack(grad, columns) && can_pack(grad_values, columns)) {
    return launch(spread_gradient<Scalar, kWide>, tiles, kThreads, 0, stream, grad, segments,
                  make_layout(columns, kWide), mean, grad_values);
  }
  return launch(spread_gradient<Scalar, 1>, tiles, kThreads, 0, stream, grad, segments,
                make_layout(columns, 1), mean, grad_values);
}

template <typename Scalar>
Status segment_max_backward(const Scalar* grad, const int32_t* row_of_maximum, int64_t num_segments,
                            int64_t num_rows, int64_t columns, Scalar* grad_values, Stream stream) {
  const size_t bytes = static_cast<size_t>(num_rows * columns) * sizeof(Scalar);
  const Status status = fill_bytes(grad_values, 0, bytes, stream);
  if (status != nullptr) return status;
  const int64_t count = num_segments * columns;
  return launch(send_gradient<Scalar>, (count + kThreads - 1) / kThreads, kThreads, 0, stream, grad,
                row_of_maximum, count, columns, num_rows, grad_values);
}

#define P3D_INSTANTIATE(Scalar)                                                                  \
  template int64_t segment_workspace_bytes<Scalar>(int64_t, int64_t);                            \
  template Status segment_sum(const Scalar*, const Segments&, int64_t, bool, Scalar*, void*,     \
                              Stream);                                                           \
  template Status segment_sum_backward(const Scalar*, const Segments&, int64_t, bool, Scalar*,   \
                                       Stream);                                                  \
  template Status segment_max(const Scalar*, const Segments&, int64_t, Scalar*, int32_t*, void*, \
                              Stream);                                                           \
  template Status segment_max_backward(const Scalar*, const int32_t*, int64_t, int64_t, int64_t, \
                                       Scalar*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
