#include "cuda/causal_conv1d.h"
#include "cuda/conv_tile.cuh"

namespace perception3d {
namespace cuda {
namespace {

template <typename Scalar, int kTaps, int kPack>
__global__ void __launch_bounds__(kConvThreads) convolve(CausalConv<Scalar> conv, Scalar* y) {
  using Tile = ConvTile<kTaps>;
  P3D_SHARED(int64_t, row, kConvThreads);
  P3D_SHARED(uint32_t, halves, 2);
  const Tile tile(conv.layout, row, halves);
  const int unused = kTaps - static_cast<int>(conv.taps);
  for (int64_t channel = threadIdx.x * kPack; channel < conv.channels;
       channel += kConvThreads * kPack) {
    const ConvWeights<kTaps, kPack> weights(conv, channel);
    ConvWindow<kTaps, kPack> window;
    window.clear();
    const int end = tile.length + Tile::kBefore;
    for (int begin = 0; begin < end; begin += kRowsAtOnce) {
      Packed<Scalar, kPack> x[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        x[i] = load_channels<kPack>(conv.x, begin + i < end ? tile.row[begin + i] : -1, channel);
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const int place = begin + i;
        if (place >= end) break;
        window.take(x[i], tile.starts_at(place));
        if (place < Tile::kBefore) continue;
        float sum[kPack];
        window.convolve(weights, unused, sum);
        Packed<Scalar, kPack> result;
#pragma unroll
        for (int c = 0; c < kPack; ++c) {
          store(conv.silu ? sum[c] * conv_sigmoid(sum[c]) : sum[c], result.number[c]);
        }
        store_packed(result, y + tile.row[place] * conv.channels + channel);
      }
    }
  }
}

}  // namespace

template <typename Scalar>
Status causal_conv1d(const CausalConv<Scalar>& conv, Scalar* y, Stream stream) {
  const Grid grid((conv.layout.length + kConvSteps - 1) / kConvSteps);
  auto* kernel = conv.taps > kFewTaps                   ? convolve<Scalar, kManyTaps, 1>
                 : can_read_four(conv.x, conv.channels) ? convolve<Scalar, kFewTaps, 4>
                                                        : convolve<Scalar, kFewTaps, 1>;
  return launch(kernel, grid, kConvThreads, 0, stream, conv, y);
}

#define P3D_INSTANTIATE(Scalar) \
  template Status causal_conv1d(const CausalConv<Scalar>&, Scalar*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
