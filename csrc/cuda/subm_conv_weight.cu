#include "cuda/row_tiles.cuh"
#include "cuda/subm_conv.h"

namespace perception3d {
namespace cuda {
namespace {

// Rows are cut into parts that are summed side by side, few enough for their sums to be stored.
constexpr int64_t kRowsPerPart = 4096;
constexpr int64_t kMostParts = 16;

template <typename Number>
struct Shared {
  SharedTile<Number, kTileWidth> features, grad;  // (kTileDepth, kTileWidth): pairs, channels
  int32_t *in, *out;                              // (kTileThreads) pairs
  int* counts;

  static constexpr int kTile = kTileDepth * SharedTile<Number, kTileWidth>::kStride;
  static constexpr size_t kBytes =
      2 * kTile * sizeof(Number) + (2 * kTileThreads + kTileThreads / 32) * sizeof(int32_t);

  __device__ explicit Shared(Number* memory) {
    features.numbers = memory;
    grad.numbers = memory + kTile;
    in = reinterpret_cast<int32_t*>(memory + 2 * kTile);
    out = in + kTileThreads;
    counts = out + kTileThreads;
  }
};

// Block (tiles of the matrix, tap, part): kTileWidth x kTileWidth of the gradient of one tap, from
// the rows of one part.
template <typename Scalar, int kPack>
__global__ void __launch_bounds__(kTileThreads, 2)
    sum_products(ConvShape shape, const Scalar* features, const Scalar* grad,
                 const int32_t* neighbours, int64_t rows_per_part, Compute<Scalar>* sums) {
  typedef Compute<Scalar> Number;
  const Shared<Number> shared(dynamic_shared<Number>());
  const int64_t across = (shape.out_channels + kTileWidth - 1) / kTileWidth;
  const int64_t first_in = blockIdx.x / across * kTileWidth;
  const int64_t first_out = blockIdx.x % across * kTileWidth;
  const int64_t tap = blockIdx.y, begin = blockIdx.z * rows_per_part;
  const int64_t end = min(begin + rows_per_part, shape.rows);
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  Number sum[4][4] = {};
  for (int64_t batch = begin; batch < end; batch += kTileThreads) {
    const int64_t row = batch + threadIdx.x;
    const int32_t found = row < end ? __ldg(neighbours + row * shape.taps + tap) : -1;
    check_index(int64_t{found} + 1, shape.rows + 1, "subm_conv_backward: neighbours + 1");
    const int count = list_kept(found >= 0, found, static_cast<int32_t>(row), shared.in, shared.out,
                                shared.counts);
    for (int first = 0; first < count; first += kTileDepth) {
      fetch_rows<kTileDepth, kPack>(features, shape.in_channels, first_in, shared.in + first,
                                    count - first, shared.features);
      fetch_rows<kTileDepth, kPack>(grad, shape.out_channels, first_out, shared.out + first,
                                    count - first, shared.grad);
      __syncthreads();
#pragma unroll 4
      for (int pair = 0; pair < kTileDepth; ++pair) {
        Number a[4], b[4];
        load_four(shared.features.at(pair, 4 * y), a);
        load_four(shared.grad.at(pair, 4 * x), b);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int o = 0; o < 4; ++o) sum[i][o] += a[i] * b[o];
        }
      }
      __syncthreads();
    }
  }
  for (int i = 0; i < 4; ++i) {
    for (int o = 0; o < 4; ++o) {
      const int64_t in = first_in + 4 * y + i, out = first_out + 4 * x + o;
      if (in >= shape.in_channels || out >= shape.out_channels) continue;
      const int64_t matrix = blockIdx.z * shape.taps + tap;
      sums[(matrix * shape.in_channels + in) * shape.out_channels + out] = sum[i][o];
    }
  }
}

template <typename Scalar>
__global__ void __launch_bounds__(kTileThreads)
    join_parts(const Compute<Scalar>* sums, int64_t parts, int64_t count, Scalar* grad_weight) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kTileThreads + threadIdx.x;
  if (place >= count) return;
  Compute<Scalar> sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += sums[part * count + place];
  store(sum, grad_weight[place]);
}

int64_t rows_per_part(int64_t rows) {
  const int64_t needed = (rows + kMostParts - 1) / kMostParts;
  return needed > kRowsPerPart ? needed : kRowsPerPart;
}

int64_t part_count(int64_t rows) { return (rows + rows_per_part(rows) - 1) / rows_per_part(rows); }

template <typename Scalar>
bool can_fetch(const Scalar* rows, int64_t columns) {
  constexpr int kPack = kTilePack<Scalar>;
  return columns % kPack == 0 && reinterpret_cast<uintptr_t>(rows) % (kPack * sizeof(Scalar)) == 0;
}

}  // namespace

int64_t subm_conv_weight_workspace(const ConvShape& shape) {
  return part_count(shape.rows) * shape.taps * shape.in_channels * shape.out_channels;
}

template <typename Scalar>
Status subm_conv_weight_backward(const ConvShape& shape, const Scalar* features, const Scalar* grad,
                                 const int32_t* neighbours, Scalar* grad_weight, void* workspace,
                                 Stream stream) {
  constexpr int kPack = kTilePack<Scalar>;
  const bool packed = can_fetch(features, shape.in_channels) && can_fetch(grad, shape.out_channels);
  const int64_t tiles = ((shape.in_channels + kTileWidth - 1) / kTileWidth) *
                        ((shape.out_channels + kTileWidth - 1) / kTileWidth);
  const int64_t parts = part_count(shape.rows);
  Compute<Scalar>* sums = static_cast<Compute<Scalar>*>(workspace);
  const Status status =
      launch(packed ? sum_products<Scalar, kPack> : sum_products<Scalar, 1>,
             Grid(tiles, shape.taps, parts), kTileThreads, Shared<Compute<Scalar>>::kBytes, stream,
             shape, features, grad, neighbours, rows_per_part(shape.rows), sums);
  if (status != nullptr) return status;
  const int64_t count = shape.taps * shape.in_channels * shape.out_channels;
  return launch(join_parts<Scalar>, (count + kTileThreads - 1) / kTileThreads, kTileThreads, 0,
                stream, sums, parts, count, grad_weight);
}

#define P3D_INSTANTIATE(Scalar)                                                             \
  template Status subm_conv_weight_backward(const ConvShape&, const Scalar*, const Scalar*, \
                                            const int32_t*, Scalar*, void*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
