#include <type_traits>

#include "cuda/sparse_conv.h"
#include "cuda/sparse_conv_methods.cuh"

namespace perception3d {
namespace cuda {
namespace {

// Voxels, rows of the result, of a block.  Their sums stay in shared memory while all taps pass; at
// each tap only the voxels that have a row of the features there are multiplied.
constexpr int kVoxels = 128;

template <typename Method>
constexpr size_t kSumBytes = kVoxels * kTileWidth * sizeof(typename Method::Number);
constexpr size_t kListBytes = (2 * kVoxels + kTileThreads / 32) * sizeof(int32_t);

// Block (voxels, columns): kVoxels rows and kTileWidth columns of the result.
template <typename Method, typename Scalar>
__global__ void __launch_bounds__(kTileThreads, Method::kBlocks)
    convolve(ConvShape shape, const Scalar* features, const int32_t* table,
             ConvWeight<Scalar> weight, const Scalar* bias, Scalar* result) {
  typedef typename Method::Number Number;
  unsigned char* memory = dynamic_shared<unsigned char>();
  Number* sums = reinterpret_cast<Number*>(memory);
  memory += kSumBytes<Method>;
  int32_t* in = reinterpret_cast<int32_t*>(memory + Method::kBytes);
  int32_t* out = in + kVoxels;
  int* counts = out + kVoxels;

  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kVoxels;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kTileWidth;
  for (int i = threadIdx.x; i < kVoxels * kTileWidth; i += kTileThreads) {
    const int64_t c = column + i % kTileWidth;
    sums[i] = bias != nullptr && c < shape.out_channels ? load(bias[c]) : Number{0};
  }
  const int64_t row = begin + threadIdx.x;
  const bool exists = threadIdx.x < kVoxels && row < shape.rows;
  for (int64_t tap = 0; tap < shape.taps; ++tap) {
    const int32_t found = exists ? __ldg(table + row * shape.taps + tap) : -1;
    check_index(int64_t{found} + 1, shape.inputs + 1, "sparse convolution: rows of the table + 1");
    const int count =
        list_kept(found >= 0, found, static_cast<int32_t>(threadIdx.x), in, out, counts);
    Method::multiply(memory, shape, features, weight, tap, column, TapRows{in, out, count}, sums);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kVoxels * kTileWidth; i += kTileThreads) {
    const int64_t r = begin + i / kTileWidth, c = column + i % kTileWidth;
    if (r < shape.rows && c < shape.out_channels) {
      store(sums[i], result[r * shape.out_channels + c]);
    }
  }
}

template <typename Method, typename Scalar>
Status launch_method(const ConvShape& shape, const Scalar* features, const int32_t* table,
                     const ConvWeight<Scalar>& weight, const Scalar* bias, Scalar* result,
                     Stream stream) {
  const Grid grid((shape.rows + kVoxels - 1) / kVoxels,
                  (shape.out_channels + kTileWidth - 1) / kTileWidth);
  return launch(convolve<Method, Scalar>, grid, kTileThreads,
                kSumBytes<Method> + Method::kBytes + kListBytes, stream, shape, features, table,
                weight, bias, result);
}

}  // namespace

template <typename Scalar>
Status sparse_conv(const ConvShape& shape, const Scalar* features, const int32_t* table,
                   const ConvWeight<Scalar>& weight, const Scalar* bias, Scalar* result,
                   Stream stream) {
  const auto by = [&](auto method) {
    return launch_method<decltype(method)>(shape, features, table, weight, bias, result, stream);
  };
  if constexpr (sizeof(Scalar) == 2) {
    typedef ByTensorCores<Scalar, false> Plain;
    typedef ByTensorCores<Scalar, true> Turned;
    if (can_pack(features, shape.in_channels)) {
      if (Plain::can_read(weight, shape)) return by(Plain{});
      if (Turned::can_read(weight, shape)) return by(Turned{});
    }
  }
  constexpr int kPack = kTilePack<Scalar>;
  return can_fetch<kPack>(features, shape.in_channels) ? by(ByThreads<Scalar, kPack>{})
                                                       : by(ByThreads<Scalar, 1>{});
}

#define P3D_INSTANTIATE(Scalar)                                                \
  template Status sparse_conv(const ConvShape&, const Scalar*, const int32_t*, \
                              const ConvWeight<Scalar>&, const Scalar*, Scalar*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
