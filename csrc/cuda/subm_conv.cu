#include <type_traits>

#include "cuda/subm_conv.h"
#include "cuda/subm_conv_methods.cuh"

namespace perception3d {
namespace cuda {
namespace {

// Voxels of a block.  Their sums stay in shared memory while all taps pass; at each tap only the
// voxels that have a neighbour there are multiplied.
constexpr int kVoxels = 128;

template <typename Method>
constexpr size_t kSumBytes = kVoxels * kTileWidth * sizeof(typename Method::Number);
constexpr size_t kListBytes = (2 * kVoxels + kTileThreads / 32) * sizeof(int32_t);

// Block (voxels, columns): kVoxels rows and kTileWidth columns of the result.
template <typename Method, typename Scalar>
__global__ void __launch_bounds__(kTileThreads, 2)
    convolve(ConvShape shape, const Scalar* features, const int32_t* neighbours,
             TapWeights<Scalar> weight, const Scalar* bias, Scalar* result) {
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
    const int32_t found = exists ? __ldg(neighbours + row * shape.taps + tap) : -1;
    check_index(int64_t{found} + 1, shape.rows + 1, "subm_conv: neighbours + 1");
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
Status launch_method(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
                     const TapWeights<Scalar>& weight, const Scalar* bias, Scalar* result,
                     Stream stream) {
  const Grid grid((shape.rows + kVoxels - 1) / kVoxels,
                  (shape.out_channels + kTileWidth - 1) / kTileWidth);
  return launch(convolve<Method, Scalar>, grid, kTileThreads,
                kSumBytes<Method> + Method::kBytes + kListBytes, stream, shape, features,
                neighbours, weight, bias, result);
}

// kTurned: the numbers of a column of the weight lie side by side, and not those of a row.
template <bool kTurned, typename Scalar>
Status run(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
           const TapWeights<Scalar>& weight, const Scalar* bias, Scalar* result, Stream stream) {
  if constexpr (sizeof(Scalar) == 2) {
    if (can_pack(features, shape.in_channels) && can_pack(weight.data, shape.out_channels)) {
      return launch_method<ByTensorCores<Scalar, kTurned>>(shape, features, neighbours, weight,
                                                           bias, result, stream);
    }
  }
  constexpr int kPack = kTilePack<Scalar>;
  return can_fetch<kPack>(features, shape.in_channels)
             ? launch_method<ByThreads<Scalar, kPack>>(shape, features, neighbours, weight, bias,
                                                       result, stream)
             : launch_method<ByThreads<Scalar, 1>>(shape, features, neighbours, weight, bias,
                                                   result, stream);
}

}  // namespace

template <typename Scalar>
Status subm_conv(const ConvShape& shape, const Scalar* features, const int32_t* neighbours,
                 const Scalar* weight, const Scalar* bias, Scalar* result, Stream stream) {
  const TapWeights<Scalar> view{weight, shape.in_channels * shape.out_channels, shape.out_channels,
                                1};
  return run<false>(shape, features, neighbours, view, bias, result, stream);
}

template <typename Scalar>
Status subm_conv_features_backward(const ConvShape& shape, const Scalar* grad,
                                   const int32_t* neighbours, const Scalar* weight,
                                   Scalar* grad_features, Stream stream) {
  const int64_t tap_step = shape.in_channels * shape.out_channels;
  const TapWeights<Scalar> view{weight + (shape.taps - 1) * tap_step, -tap_step, 1,
                                shape.out_channels};
  return run<true, Scalar>(transposed(shape), grad, neighbours, view, nullptr, grad_features,
                           stream);
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
