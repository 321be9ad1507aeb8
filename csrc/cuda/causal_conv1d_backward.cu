#include "cuda/causal_conv1d.h"
#include "cuda/column_sums.cuh"
#include "cuda/conv_tile.cuh"

namespace perception3d {
namespace cuda {
namespace {

// Gradients of rows whose step lies in reach of the latest one: entry j is that of the step
// kTaps - 1 - j steps ago.  A row is written when no later step can add to it.
template <typename Scalar, int kTaps, int kPack>
struct PendingRows {
  float grad[kTaps][kPack];
  int written;  // entries of tile.row before this one have been dealt with

  __device__ __forceinline__ explicit PendingRows(int first) : written(first) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int c = 0; c < kPack; ++c) grad[j][c] = 0;
    }
  }

  // Makes room for step `place`.
  __device__ __forceinline__ void advance() {
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
#pragma unroll
      for (int j = 0; j + 1 < kTaps; ++j) grad[j][c] = grad[j + 1][c];
      grad[kTaps - 1][c] = 0;
    }
  }

  // Writes the rows of all places before `limit`, with `latest` the place of the last entry.
  __device__ __forceinline__ void write_before(int limit, int latest, const int64_t* row,
                                               int64_t channels, int64_t channel, Scalar* target) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      const int place = latest - (kTaps - 1) + j;
      if (place < written || place >= limit) continue;
      Packed<Scalar, kPack> numbers;
#pragma unroll
      for (int c = 0; c < kPack; ++c) store(grad[j][c], numbers.number[c]);
      store_packed(numbers, target + row[place] * channels + channel);
    }
    written = limit > written ? limit : written;
  }
};

// sums: (tiles, kTaps + 1, D) gradients of weight and bias of each tile.
template <typename Scalar, int kTaps, int kPack>
__global__ void __launch_bounds__(kConvThreads)
    go_back(CausalConv<Scalar> conv, Rows<const Scalar> grad, Scalar* grad_x, float* sums) {
  using Tile = ConvTile<kTaps>;
  constexpr int kBefore = Tile::kBefore;
  P3D_SHARED(int64_t, row, kConvThreads);
  P3D_SHARED(uint32_t, halves, 2);
  const Tile tile(conv.layout, row, halves);
  const int unused = kTaps - static_cast<int>(conv.taps);
  const int tile_end = kBefore + tile.length;
  // Steps after the tile still add to the gradients of its last rows.
  const int end = static_cast<int>(
      min(static_cast<int64_t>(tile_end + kBefore), conv.layout.length - tile.first + kBefore));
  for (int64_t channel = threadIdx.x * kPack; channel < conv.channels;
       channel += kConvThreads * kPack) {
    const ConvWeights<kTaps, kPack> weights(conv, channel);
    ConvWindow<kTaps, kPack> window;
    window.clear();
    PendingRows<Scalar, kTaps, kPack> pending(kBefore);
    float weight_sum[kTaps][kPack] = {}, bias_sum[kPack] = {};
    for (int place = 0; place < end; ++place) {
      const bool start = tile.starts_at(place);
      window.take(load_channels<kPack>(conv.x, tile.row[place], channel), start);
      if (place < kBefore) continue;
      if (start) {  // what comes before is another sequence
        pending.write_before(min(place, tile_end), place - 1, tile.row, conv.channels, channel,
                             grad_x);
        if (place >= tile_end) break;
      }
      pending.advance();
      const auto own = load_channels<kPack>(grad, tile.row[place], channel);
      float sum[kPack], sum_grad[kPack];
      window.convolve(weights, unused, sum);
#pragma unroll
      for (int c = 0; c < kPack; ++c) {
        sum_grad[c] = load(own.number[c]);
        if (conv.silu) {
          const float open = conv_sigmoid(sum[c]);
          sum_grad[c] *= open * (1.0f + sum[c] * (1.0f - open));
        }
      }
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        if (j < unused) continue;
#pragma unroll
        for (int c = 0; c < kPack; ++c) {
          pending.grad[j][c] += weights.weight[j][c] * sum_grad[c];
          if (place < tile_end) weight_sum[j][c] += sum_grad[c] * window.x[j][c];
        }
      }
      if (place < tile_end) {
#pragma unroll
        for (int c = 0; c < kPack; ++c) bias_sum[c] += sum_grad[c];
      }
      pending.write_before(min(place - kBefore + 1, tile_end), place, tile.row, conv.channels,
                           channel, grad_x);
    }
    // Nothing follows: the sequences end here, or the rows left belong to the next tile.
    pending.write_before(tile_end, end - 1, tile.row, conv.channels, channel, grad_x);
    float* target = sums + static_cast<int64_t>(blockIdx.x) * (kTaps + 1) * conv.channels + channel;
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
#pragma unroll
      for (int j = 0; j < kTaps; ++j) target[j * conv.channels + c] = weight_sum[j][c];
      target[kTaps * conv.channels + c] = bias_sum[c];
    }
  }
}

int64_t tile_count(int64_t length) { return (length + kConvSteps - 1) / kConvSteps; }

template <typename Scalar, int kTaps, int kPack>
Status run_back(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad, Scalar* grad_x,
                float* grad_weight, float* grad_bias, float* sums, Stream stream) {
  const int64_t tiles = tile_count(conv.layout.length), channels = conv.channels;
  Status status = launch(go_back<Scalar, kTaps, kPack>, Grid(tiles), kConvThreads, 0, stream, conv,
                         grad, grad_x, sums);
  const int64_t stride = (kTaps + 1) * channels, unused = kTaps - conv.taps;
  if (status == nullptr) {
    status = launch_column_sums<float>(sums + unused * channels, tiles, stride, channels, conv.taps,
                                       grad_weight, stream);
  }
  if (status == nullptr && grad_bias != nullptr) {
    status = launch_column_sums<float>(sums + kTaps * channels, tiles, stride, channels, 1,
                                       grad_bias, stream);
  }
  return status;
}

}  // namespace

int64_t conv_backward_workspace_bytes(int64_t length, int64_t channels) {
  return tile_count(length) * (kManyTaps + 1) * channels * 4;
}

template <typename Scalar>
Status causal_conv1d_backward(const CausalConv<Scalar>& conv, const Rows<const Scalar>& grad,
                              Scalar* grad_x, float* grad_weight, float* grad_bias, void* workspace,
                              Stream stream) {
  float* sums = static_cast<float*>(workspace);
  const auto run = conv.taps > kFewTaps ? run_back<Scalar, kManyTaps, 1>
                   : can_read_four(conv.x, conv.channels) && can_read_four(grad, conv.channels)
                       ? run_back<Scalar, kFewTaps, 4>
                       : run_back<Scalar, kFewTaps, 1>;
  return run(conv, grad, grad_x, grad_weight, grad_bias, sums, stream);
}

#define P3D_INSTANTIATE(Scalar)                                                                \
  template Status causal_conv1d_backward(const CausalConv<Scalar>&, const Rows<const Scalar>&, \
                                         Scalar*, float*, float*, void*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
