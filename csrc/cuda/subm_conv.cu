#include "cuda/row_tiles.cuh"
#include "cuda/subm_conv.h"

namespace perception3d {
namespace cuda {
namespace {

// Voxels of a block.  Their sums stay in shared memory while all taps pass; at each tap only the
// voxels that have a neighbour there are multiplied.
constexpr int kVoxels = 128;

// Weights of one tap: element (in, out) is data[tap * tap_step + in * in_step + out * out_step].
template <typename Scalar>
struct Weight {
  const Scalar* data;
  int64_t tap_step, in_step, out_step;
};

template <typename Number>
struct Shared {
  Number* sums;  // (kVoxels, kTileWidth)
  SharedTile<Number, kTileDepth> rows;
  SharedTile<Number, kTileWidth> weight;
  int32_t *in, *out;  // (kVoxels) lists of rows, and of voxels of the block
  int* counts;

  static constexpr int kNumbers = kVoxels * kTileWidth +
                                  kTileWidth * SharedTile<Number, kTileDepth>::kStride +
                                  kTileDepth * SharedTile<Number, kTileWidth>::kStride;
  static constexpr size_t kBytes =
      kNumbers * sizeof(Number) + (2 * kVoxels + kTileThreads / 32) * sizeof(int32_t);

  __device__ explicit Shared(Number* memory) : sums(memory) {
    rows.numbers = sums + kVoxels * kTileWidth;
    weight.numbers = rows.numbers + kTileWidth * SharedTile<Number, kTileDepth>::kStride;
    in = reinterpret_cast<int32_t*>(memory + kNumbers);
    out = in + kVoxels;
    counts = out + kVoxels;
  }
};

// Fetches kTileDepth x kTileWidth weights of a tap; zeros outside.  Neighbouring threads read what
// lies side by side.
template <typename Scalar>
__device__ __forceinline__ void fetch_weight(const Weight<Scalar>& weight, const ConvShape& shape,
                                             int64_t tap, int64_t depth, int64_t column,
                                             const SharedTile<Compute<Scalar>, kTileWidth>& tile) {
  const bool by_column = weight.out_step == 1;
  for (int i = threadIdx.x; i < kTileDepth * kTileWidth; i += kTileThreads) {
    const int d = by_column ? i / kTileWidth : i % kTileDepth;
    const int c = by_column ? i % kTileWidth : i / kTileDepth;
    const bool exists = depth + d < shape.in_channels && column + c < shape.out_channels;
    const int64_t place =
        tap * weight.tap_step + (depth + d) * weight.in_step + (column + c) * weight.out_step;
    *tile.at(d, c) = exists ? load(weight.data[place]) : Compute<Scalar>{0};
  }
}

// sums[row][column] += rows[4 y + row][d] weight[d][4 x + column] over d.
template <typename Number>
__device__ __forceinline__ void multiply(const Shared<Number>& shared, Number (&sums)[4][4]) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 2
  for (int first = 0; first < kTileDepth; first += 4) {
    Number row[4][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) load_four(shared.rows.at(4 * y + r, first), row[r]);
#pragma unroll
    for (int d = 0; d < 4; ++d) {
      Number factor[4];
      load_four(shared.weight.at(first + d, 4 * x), factor);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[r][c] += row[r][d] * factor[c];
      }
    }
  }
}

// Adds the products of the listed rows at one tap to the sums of their voxels.
template <typename Scalar, int kPack>
__device__ __forceinline__ void add_tap(const Shared<Compute<Scalar>>& shared,
                                        const ConvShape& shape, const Scalar* features,
                                        const Weight<Scalar>& weight, int64_t tap, int64_t column,
                                        int count) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  for (int first = 0; first < count; first += kTileWidth) {
    Compute<Scalar> sums[4][4] = {};
    for (int64_t depth = 0; depth < shape.in_channels; depth += kTileDepth) {
      fetch_rows<kTileWidth, kPack>(features, shape.in_channels, depth, shared.in + first,
                                    count - first, shared.rows);
      fetch_weight(weight, shape, tap, depth, column, shared.weight);
      __syncthreads();
      multiply(shared, sums);
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int place = first + 4 * y + r;
      if (place >= count) continue;
      Compute<Scalar>* target = shared.sums + shared.out[place] * kTileWidth + 4 * x;
#pragma unroll
      for (int c = 0; c < 4; ++c) target[c] += sums[r][c];
    }
  }
}

// Block (voxels, columns): kVoxels rows and kTileWidth columns of the result.
template <typename Scalar, int kPack>
__global__ void __launch_bounds__(kTileThreads, 2)
    convolve(ConvShape shape, const Scalar* features, const int32_t* neighbours,
             Weight<Scalar> weight, const Scalar* bias, Scalar* result) {
  typedef Compute<Scalar> Number;
  const Shared<Number> shared(dynamic_shared<Number>());
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kVoxels;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kTileWidth;
  for (int i = threadIdx.x; i < kVoxels * kTileWidth; i += kTileThreads) {
    const int64_t c = column + i % kTileWidth;
    shared.sums[i] = bias != nullptr && c < shape.out_channels ? load(bias[c]) : Number{0};
  }
  const int64_t row = begin + threadIdx.x;
  const bool exists = threadIdx.x < kVoxels && row < shape.rows;
  for (int64_t tap = 0; tap < shape.taps; ++tap) {
    const int32_t found = exists ? __ldg(neighbours + row * shape.taps + tap) : -1;
    check_index(int64_t{found} + 1, shape.rows + 1, "subm_conv: neighbours + 1");
    const int count = list_kept(found >= 0, found, static_cast<int32_t>(threadIdx.x), shared.in,
                                shared.out, shared.counts);
    add_tap<Scalar, kPack>(shared, shape, features, weight, tap, column, count);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kVoxels * kTileWidth; i += kTileThreads) {
    const int64_t r = begin + i / kTileWidth, c = column + i % kTileWidth;
    if (r < shape.rows && c < shape.out_channels) {
      store(shared.sums[i], result[r * shape.out_channels + c]);
    }
  }
}

template <typename Scalar>
Status run(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
           const Weight<Scalar>& weight, const Scalar* bias, Scalar* result, Stream stream) {
  constexpr int kPack = kTilePack<Scalar>;
  const bool packed = shape.in_channels % kPack == 0 &&
                      reinterpret_cast<uintptr_t>(features) % (kPack * sizeof(Scalar)) == 0;
  const Grid grid((shape.rows + kVoxels - 1) / kVoxels,
                  (shape.out_channels + kTileWidth - 1) / kTileWidth);
  return launch(packed ? convolve<Scalar, kPack> : convolve<Scalar, 1>, grid, kTileThreads,
                Shared<Compute<Scalar>>::kBytes, stream, shape, features, neighbours, weight, bias,
                result);
}

}  // namespace

template <typename Scalar>
Status subm_conv(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
                 const Scalar* weight, const Scalar* bias, Scalar* result, Stream stream) {
  const Weight<Scalar> view{weight, shape.in_channels * shape.out_channels, shape.out_channels, 1};
  return run(shape, features, neighbours, view, bias, result, stream);
}

template <typename Scalar>
Status subm_conv_features_backward(const ConvShape& shape, const Scalar* grad,
                                   const int32_t* neighbours, const Scalar* weight,
                                   Scalar* grad_features, Stream stream) {
  const int64_t tap_step = shape.in_channels * shape.out_channels;
  const Weight<Scalar> view{weight + (shape.taps - 1) * tap_step, -tap_step, 1, shape.out_channels};
  return run<Scalar>(transposed(shape), grad, neighbours, view, nullptr, grad_features, stream);
}

#define P3D_INSTANTIATE(Scalar)                                                                \
  template Status subm_conv(const ConvShape&, const Scalar*, const int32_t*, const Scalar*,    \
                            const Scalar*, Scalar*, Stream);                                   \
  template Status subm_conv_features_backward(const ConvShape&, const Scalar*, const int32_t*, \
                                              const Scalar*, Scalar*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
