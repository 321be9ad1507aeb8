#include "common/packed.cuh"
#include "cuda/depthwise_conv.h"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTapsAtOnce = 5;  // whose loads are under way together
constexpr int kMostParts = 16;  // of one launch
// Rows that a block sums into one partial gradient of the weight, and how many of those there are.
constexpr int64_t kRowsPerSum = 64;
constexpr int64_t kMostSums = 1024;
constexpr int kSumColumns = 32;
constexpr int kRowsAtOnce = 4;

// Channels that go one way: a group, or channels to be passed on, which have no taps.
template <typename Scalar>
struct Part {
  const int32_t* neighbours;
  const Scalar* weight;
  Scalar* grad_weight;
  int64_t first, channels;
  int64_t sums;  // where the partial sums of this part begin in a row of them
  int taps, lanes;
};

template <typename Scalar>
struct Parts {
  Part<Scalar> part[kMostParts];
};

template <typename Scalar, int kPack>
__device__ __forceinline__ void add_products(const Packed<Scalar, kPack>& a,
                                             const Packed<Scalar, kPack>& b, Compute<Scalar>* sum) {
#pragma unroll
  for (int c = 0; c < kPack; ++c) sum[c] += load(a.number[c]) * load(b.number[c]);
}

// Sum over the taps of one voxel, for kPack channels from `channel` of the part on; with kMirror
// taps and weights are paired in reverse.
template <typename Scalar, int kPack, bool kMirror>
__device__ __forceinline__ void add_taps(const Part<Scalar>& part, const Scalar* source,
                                         int64_t columns, int64_t rows, int64_t row,
                                         int64_t channel, Compute<Scalar>* sum) {
  const int32_t* neighbours = part.neighbours + row * part.taps;
  const Scalar* column = source + part.first + channel;
  for (int first = 0; first < part.taps; first += kTapsAtOnce) {
    int32_t found[kTapsAtOnce];
    Packed<Scalar, kPack> value[kTapsAtOnce];
#pragma unroll
    for (int i = 0; i < kTapsAtOnce; ++i) {
      found[i] = first + i < part.taps ? __ldg(neighbours + first + i) : -1;
      check_index(found[i] + 1, rows + 1, "depthwise_conv: neighbours + 1");
    }
#pragma unroll
    for (int i = 0; i < kTapsAtOnce; ++i) {
      if (found[i] >= 0) value[i] = load_packed<kPack>(column + found[i] * columns);
    }
#pragma unroll
    for (int i = 0; i < kTapsAtOnce; ++i) {
      if (found[i] < 0) continue;
      const int64_t tap = kMirror ? part.taps - 1 - first - i : first + i;
      add_products(value[i], load_packed<kPack>(part.weight + tap * part.channels + channel), sum);
    }
  }
}

// `lanes` neighbouring threads share a voxel, kPack channels each.
template <typename Scalar, int kPack, bool kMirror>
__global__ void __launch_bounds__(kThreads)
    convolve(Parts<Scalar> parts, const Scalar* source, int64_t rows, int64_t columns,
             bool residual, Scalar* result) {
  const Part<Scalar>& part = parts.part[blockIdx.y];
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (kThreads / part.lanes) + threadIdx.x / part.lanes;
  if (row >= rows) return;
  for (int64_t channel = threadIdx.x % part.lanes * kPack; channel < part.channels;
       channel += part.lanes * kPack) {
    Compute<Scalar> sum[kPack] = {};
    const int64_t place = row * columns + part.first + channel;
    if (part.taps == 0 || residual) {
      const auto own = load_packed<kPack>(source + place);
      const Compute<Scalar> times = part.taps == 0 && residual ? 2 : 1;
#pragma unroll
      for (int c = 0; c < kPack; ++c) sum[c] = times * load(own.number[c]);
    }
    add_taps<Scalar, kPack, kMirror>(part, source, columns, rows, row, channel, sum);
    Packed<Scalar, kPack> numbers;
#pragma unroll
    for (int c = 0; c < kPack; ++c) store(sum[c], numbers.number[c]);
    store_packed(numbers, result + place);
  }
}

// A thread owns one tap and kPack channels, and goes over the rows of the block.
template <typename Scalar, int kPack>
__global__ void __launch_bounds__(kThreads)
    sum_weight_gradients(Parts<Scalar> parts, const Scalar* grad, const Scalar* features,
                         int64_t rows, int64_t columns, int64_t rows_per_sum, int64_t width,
                         Compute<Scalar>* sums) {
  const Part<Scalar>& part = parts.part[blockIdx.y];
  const int64_t begin = blockIdx.x * rows_per_sum, end = min(begin + rows_per_sum, rows);
  const int64_t pieces = part.channels / kPack;
  for (int64_t slot = threadIdx.x; slot < part.taps * pieces; slot += kThreads) {
    const int64_t tap = slot / pieces, channel = slot % pieces * kPack;
    const int64_t column = part.first + channel;
    Compute<Scalar> sum[kPack] = {};
    for (int64_t first = begin; first < end; first += kRowsAtOnce) {
      int32_t found[kRowsAtOnce];
      Packed<Scalar, kPack> there[kRowsAtOnce], here[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const int64_t row = first + i;
        found[i] = row < end ? __ldg(part.neighbours + row * part.taps + tap) : -1;
        check_index(found[i] + 1, rows + 1, "depthwise_conv_backward: neighbours + 1");
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        if (found[i] < 0) continue;
        there[i] = load_packed<kPack>(features + found[i] * columns + column);
        here[i] = load_packed<kPack>(grad + (first + i) * columns + column);
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        if (found[i] >= 0) add_products(there[i], here[i], sum);
      }
    }
    Compute<Scalar>* target = sums + blockIdx.x * width + part.sums + tap * part.channels + channel;
#pragma unroll
    for (int c = 0; c < kPack; ++c) target[c] = sum[c];
  }
}

// Adds up `count` partial sums of every weight: kSumColumns weights per block.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads)
    join_weight_gradients(Parts<Scalar> parts, const Compute<Scalar>* sums, int64_t count,
                          int64_t width) {
  constexpr int kSlices = kThreads / kSumColumns;
  P3D_SHARED(Compute<Scalar>, shared, kThreads);
  const Part<Scalar>& part = parts.part[blockIdx.y];
  const int64_t weight = static_cast<int64_t>(blockIdx.x) * kSumColumns + threadIdx.x % kSumColumns;
  const bool exists = weight < part.taps * part.channels;
  Compute<Scalar> sum = 0;
  if (exists) {
    const Compute<Scalar>* column = sums + part.sums + weight;
#pragma unroll 4
    for (int64_t i = threadIdx.x / kSumColumns; i < count; i += kSlices) sum += column[i * width];
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (!exists || threadIdx.x >= kSumColumns) return;
  for (int slice = 1; slice < kSlices; ++slice) sum += shared[slice * kSumColumns + threadIdx.x];
  store(sum, part.grad_weight[weight]);
}

// All parts of a convolution, the groups first; `width`: weights of all groups.
template <typename Scalar>
struct Plan {
  std::vector<Part<Scalar>> parts;
  size_t groups;
  int64_t width = 0;
  bool packed = true;

  Plan(const DepthwiseConv<Scalar>& conv, const std::vector<Scalar*>& grad_weight)
      : groups(conv.groups.size()) {
    for (size_t i = 0; i < groups; ++i) {
      const DepthwiseGroup<Scalar>& group = conv.groups[i];
      parts.push_back({group.neighbours, group.weight,
                       grad_weight.empty() ? nullptr : grad_weight[i], group.first, group.channels,
                       width, static_cast<int>(group.taps), 1});
      width += group.taps * group.channels;
      packed = packed && can_pack(group.weight, group.channels);
    }
    for (const ChannelRange& range : conv.passed_on()) {
      parts.push_back({nullptr, nullptr, nullptr, range.first, range.count, 0, 0, 1});
    }
    for (const Part<Scalar>& part : parts) {
      packed = packed && part.first % kPackedWidth<Scalar> == 0 &&
               part.channels % kPackedWidth<Scalar> == 0;
    }
  }

  // Calls start(parts, count) for launches of up to kMostParts of the first `number` parts.
  template <typename Start>
  Status for_each_launch(size_t number, const Start& start) const {
    for (size_t first = 0; first < number; first += kMostParts) {
      Parts<Scalar> some = {};
      const size_t count = number - first < kMostParts ? number - first : kMostParts;
      for (size_t i = 0; i < count; ++i) some.part[i] = parts[first + i];
      const Status status = start(some, static_cast<int64_t>(count));
      if (status != nullptr) return status;
    }
    return nullptr;
  }
};

template <typename Scalar, int kPack, bool kMirror>
Status launch_convolve(const Plan<Scalar>& plan, const DepthwiseConv<Scalar>& conv,
                       const Scalar* source, Scalar* result, Stream stream) {
  return plan.for_each_launch(plan.parts.size(), [&](Parts<Scalar>& parts, int64_t count) {
    int most_lanes = 1;
    for (int64_t i = 0; i < count; ++i) {
      Part<Scalar>& part = parts.part[i];
      while (part.lanes < 32 && part.lanes * kPack < part.channels) part.lanes *= 2;
      most_lanes = part.lanes > most_lanes ? part.lanes : most_lanes;
    }
    const int64_t per_block = kThreads / most_lanes;
    return launch(convolve<Scalar, kPack, kMirror>,
                  Grid((conv.rows + per_block - 1) / per_block, count), kThreads, 0, stream, parts,
                  source, conv.rows, conv.columns, conv.residual, result);
  });
}

template <bool kMirror, typename Scalar>
Status run_convolve(const DepthwiseConv<Scalar>& conv, const Scalar* source, Scalar* result,
                    Stream stream) {
  const Plan<Scalar> plan(conv, {});
  const bool packed =
      plan.packed && can_pack(source, conv.columns) && can_pack(result, conv.columns);
  return packed ? launch_convolve<Scalar, kPackedWidth<Scalar>, kMirror>(plan, conv, source, result,
                                                                         stream)
                : launch_convolve<Scalar, 1, kMirror>(plan, conv, source, result, stream);
}

int64_t rows_per_sum(int64_t rows) {
  const int64_t needed = (rows + kMostSums - 1) / kMostSums;
  return needed > kRowsPerSum ? needed : kRowsPerSum;
}

int64_t sum_count(int64_t rows) { return (rows + rows_per_sum(rows) - 1) / rows_per_sum(rows); }

}  // namespace

template <typename Scalar>
Status depthwise_conv(const DepthwiseConv<Scalar>& conv, const Scalar* features, Scalar* result,
                      Stream stream) {
  return run_convolve<false>(conv, features, result, stream);
}

template <typename Scalar>
Status depthwise_conv_features_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                        Scalar* grad_features, Stream stream) {
  return run_convolve<true>(conv, grad, grad_features, stream);
}

template <typename Scalar>
int64_t depthwise_weight_workspace(const DepthwiseConv<Scalar>& conv) {
  return sum_count(conv.rows) * Plan<Scalar>(conv, {}).width;
}

template <typename Scalar>
Status depthwise_conv_weight_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                      const Scalar* features,
                                      const std::vector<Scalar*>& grad_weight, void* workspace,
                                      Stream stream) {
  const Plan<Scalar> plan(conv, grad_weight);
  const bool packed =
      plan.packed && can_pack(grad, conv.columns) && can_pack(features, conv.columns);
  Compute<Scalar>* sums = static_cast<Compute<Scalar>*>(workspace);
  const int64_t count = sum_count(conv.rows);
  return plan.for_each_launch(plan.groups, [&](const Parts<Scalar>& parts, int64_t groups) {
    auto* kernel = packed ? sum_weight_gradients<Scalar, kPackedWidth<Scalar>>
                          : sum_weight_gradients<Scalar, 1>;
    const Status status =
        launch(kernel, Grid(count, groups), kThreads, 0, stream, parts, grad, features, conv.rows,
               conv.columns, rows_per_sum(conv.rows), plan.width, sums);
    if (status != nullptr) return status;
    int64_t most = 0;
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t weights = parts.part[i].taps * parts.part[i].channels;
      most = weights > most ? weights : most;
    }
    return launch(join_weight_gradients<Scalar>,
                  Grid((most + kSumColumns - 1) / kSumColumns, groups), kThreads, 0, stream, parts,
                  sums, count, plan.width);
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                 \
  template Status depthwise_conv(const DepthwiseConv<Scalar>&, const Scalar*, Scalar*, Stream); \
  template Status depthwise_conv_features_backward(const DepthwiseConv<Scalar>&, const Scalar*, \
                                                   Scalar*, Stream);                            \
  template int64_t depthwise_weight_workspace(const DepthwiseConv<Scalar>&);                    \
  template Status depthwise_conv_weight_backward(const DepthwiseConv<Scalar>&, const Scalar*,   \
                                                 const Scalar*, const std::vector<Scalar*>&,    \
                                                 void*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
