#include "cuda/row_tiles.cuh"
#include "cuda/sparse_conv.h"
#include "cuda/tensor_tiles.cuh"

namespace perception3d {
namespace cuda {
namespace {

// Rows are cut into parts that are summed side by side, few enough for their sums to be stored.
constexpr int64_t kRowsPerPart = 4096;
constexpr int64_t kMostParts = 16;

// Pairs of rows, features[in[i]] and grad[out[i]], and the channels from which on a block looks.
struct PairRows {
  const int32_t *in, *out;
  int count;
  int64_t first_in, first_out;
};

// A method has Number, the type of sums; kBytes, the shared memory that it needs, aligned to 16;
// add(memory, shape, features, grad, pairs, sums): sums[i][o] += sum over pairs of features[in]
// [first_in + i] grad[out][first_out + o], of which each thread holds 16, with a barrier before and
// after; and for_each(sums, body), which calls body(i, o, sum) for those of the thread.

// In the registers of each thread.  kPack numbers of a row are read at once.
template <typename Scalar, int kPack>
struct ByThreads {
  typedef Compute<Scalar> Number;
  typedef SharedTile<Number, kTileWidth> Tile;  // (kTileDepth, kTileWidth): pairs, channels

  static constexpr size_t kBytes = 2 * kTileDepth * Tile::kStride * sizeof(Number);

  __device__ static void add(void* memory, const ConvShape& shape, const Scalar* features,
                             const Scalar* grad, const PairRows& pairs, Number (&sums)[4][4]) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const Tile left{static_cast<Number*>(memory)};
    const Tile right{left.numbers + kTileDepth * Tile::kStride};
    for (int first = 0; first < pairs.count; first += kTileDepth) {
      fetch_rows<kTileDepth, kPack>(features, shape.in_channels, pairs.first_in, pairs.in + first,
                                    pairs.count - first, left);
      fetch_rows<kTileDepth, kPack>(grad, shape.out_channels, pairs.first_out, pairs.out + first,
                                    pairs.count - first, right);
      __syncthreads();
#pragma unroll 4
      for (int pair = 0; pair < kTileDepth; ++pair) {
        Number a[4], b[4];
        load_four(left.at(pair, 4 * y), a);
        load_four(right.at(pair, 4 * x), b);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int o = 0; o < 4; ++o) sums[i][o] += a[i] * b[o];
        }
      }
      __syncthreads();
    }
  }

  template <typename Body>
  __device__ static void for_each(const Number (&sums)[4][4], const Body& body) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int i = 0; i < 4; ++i) {
      for (int o = 0; o < 4; ++o) body(4 * y + i, 4 * x + o, sums[i][o]);
    }
  }
};

// By tensor cores, for 16-bit numbers.
template <typename Scalar>
struct ByTensorCores {
  typedef float Number;

  static constexpr size_t kBytes = 2 * kTensorNumbers * sizeof(Scalar);

  __device__ static void add(void* memory, const ConvShape& shape, const Scalar* features,
                             const Scalar* grad, const PairRows& pairs, float (&sums)[4][4]) {
    Scalar* left = static_cast<Scalar*>(memory);
    Scalar* right = left + kTensorNumbers;
    for (int first = 0; first < pairs.count; first += kTensorTile) {
      const auto row_of = [&](const int32_t* list) {
        return [=](int r) -> int64_t { return first + r < pairs.count ? list[first + r] : -1; };
      };
      copy_rows(features, shape.in_channels, shape.in_channels, pairs.first_in, row_of(pairs.in),
                left);
      copy_rows(grad, shape.out_channels, shape.out_channels, pairs.first_out, row_of(pairs.out),
                right);
      wait_for_copies<0>();
      __syncthreads();
      multiply_tiles<true, true>(left, right, sums);
      __syncthreads();
    }
  }

  template <typename Body>
  __device__ static void for_each(const float (&sums)[4][4], const Body& body) {
    for_each_sum(sums, body);
  }
};

constexpr size_t kListBytes = (2 * kTileThreads + kTileThreads / 32) * sizeof(int32_t);

// Block (tiles of the matrix, tap, part): kTileWidth x kTileWidth of the gradient of one tap, from
// the rows of one part.
template <typename Method, typename Scalar>
__global__ void __launch_bounds__(kTileThreads, 2)
    sum_products(ConvShape shape, const Scalar* features, const Scalar* grad, const int32_t* table,
                 int64_t rows_per_part, typename Method::Number* sums) {
  unsigned char* memory = dynamic_shared<unsigned char>();
  int32_t* in = reinterpret_cast<int32_t*>(memory + Method::kBytes);
  int32_t* out = in + kTileThreads;
  int* counts = out + kTileThreads;
  const int64_t across = (shape.out_channels + kTileWidth - 1) / kTileWidth;
  const int64_t first_in = blockIdx.x / across * kTileWidth;
  const int64_t first_out = blockIdx.x % across * kTileWidth;
  const int64_t tap = blockIdx.y, begin = blockIdx.z * rows_per_part;
  const int64_t end = min(begin + rows_per_part, shape.rows);
  typename Method::Number own[4][4] = {};
  for (int64_t batch = begin; batch < end; batch += kTileThreads) {
    const int64_t row = batch + threadIdx.x;
    const int32_t found = row < end ? __ldg(table + row * shape.taps + tap) : -1;
    check_index(int64_t{found} + 1, shape.inputs + 1, "sparse convolution: rows of the table + 1");
    const int count = list_kept(found >= 0, found, static_cast<int32_t>(row), in, out, counts);
    Method::add(memory, shape, features, grad, PairRows{in, out, count, first_in, first_out}, own);
  }
  const int64_t matrix = blockIdx.z * shape.taps + tap;
  Method::for_each(own, [&](int i, int o, typename Method::Number sum) {
    const int64_t row = first_in + i, column = first_out + o;
    if (row >= shape.in_channels || column >= shape.out_channels) return;
    sums[(matrix * shape.in_channels + row) * shape.out_channels + column] = sum;
  });
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

template <typename Method, typename Scalar>
Status launch_method(const ConvShape& shape, const Scalar* features, const Scalar* grad,
                     const int32_t* table, Compute<Scalar>* sums, Stream stream) {
  const int64_t tiles = ((shape.in_channels + kTileWidth - 1) / kTileWidth) *
                        ((shape.out_channels + kTileWidth - 1) / kTileWidth);
  return launch(sum_products<Method, Scalar>, Grid(tiles, shape.taps, part_count(shape.rows)),
                kTileThreads, Method::kBytes + kListBytes, stream, shape, features, grad, table,
                rows_per_part(shape.rows), sums);
}

template <typename Scalar>
Status run(const ConvShape& shape, const Scalar* features, const Scalar* grad, const int32_t* table,
           Compute<Scalar>* sums, Stream stream) {
  if constexpr (sizeof(Scalar) == 2) {
    if (can_pack(features, shape.in_channels) && can_pack(grad, shape.out_channels)) {
      return launch_method<ByTensorCores<Scalar>>(shape, features, grad, table, sums, stream);
    }
  }
  constexpr int kPack = kTilePack<Scalar>;
  const bool packed =
      can_fetch<kPack>(features, shape.in_channels) && can_fetch<kPack>(grad, shape.out_channels);
  return packed
             ? launch_method<ByThreads<Scalar, kPack>>(shape, features, grad, table, sums, stream)
             : launch_method<ByThreads<Scalar, 1>>(shape, features, grad, table, sums, stream);
}

}  // namespace

int64_t sparse_conv_weight_workspace(const ConvShape& shape) {
  return part_count(shape.rows) * shape.taps * shape.in_channels * shape.out_channels;
}

template <typename Scalar>
Status sparse_conv_weight_backward(const ConvShape& shape, const Scalar* features,
                                   const Scalar* grad, const int32_t* table, Scalar* grad_weight,
                                   void* workspace, Stream stream) {
  Compute<Scalar>* sums = static_cast<Compute<Scalar>*>(workspace);
  const Status status = run(shape, features, grad, table, sums, stream);
  if (status != nullptr) return status;
  const int64_t count = shape.taps * shape.in_channels * shape.out_channels;
  return launch(join_parts<Scalar>, (count + kTileThreads - 1) / kTileThreads, kTileThreads, 0,
                stream, sums, part_count(shape.rows), count, grad_weight);
}

#define P3D_INSTANTIATE(Scalar)                                                               \
  template Status sparse_conv_weight_backward(const ConvShape&, const Scalar*, const Scalar*, \
                                              const int32_t*, Scalar*, void*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
