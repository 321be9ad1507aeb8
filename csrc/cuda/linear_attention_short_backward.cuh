// Gradients of windows of up to kShortRows rows, through the matrix of all pairs.
#pragma once

#include "cuda/linear_attention_short.cuh"

namespace perception3d {
namespace cuda {

template <typename Scalar>
struct Gradients {
  HeadSource<Scalar> output;
  HeadTarget<Scalar> query;
  HeadTarget<Scalar> key;
  HeadTarget<Scalar> value;
};

// Short windows, with pairs A = q . k and P = g . v inside a window, r = 1 / (sum of a row of A +
// epsilon) and t = -r^2 (sum of a row of A P):
//   dv = (r A)^T g,  dA = r P + t,  dq = dA k,  dk = dA^T q.
// For a row that is alone dA = epsilon r^2 P, without the cancellation.
template <typename Scalar>
struct ShortBlock {
  using Number = Compute<Scalar>;

  const Task<Scalar>& task;
  int64_t head;
  int lane;
  Number* query;
  Number* key;
  Number* value;
  Number* output;
  Number* pairs;

  __device__ void gather(const ShortRows& rows, const Gradients<Scalar>& grads) const {
    const int zeros = round_up(rows.count, 4) - rows.count;
    gather_rows<true>(task.query, head, task.order, task.num_rows, rows.first, rows.count, 0,
                      task.key_padded, query, lane, kWarp);
    gather_rows<true>(task.key, head, task.order, task.num_rows, rows.first, rows.count, zeros,
                      task.key_padded, key, lane, kWarp);
    gather_rows<false>(task.value, head, task.order, task.num_rows, rows.first, rows.count, 0,
                       task.value_padded, value, lane, kWarp);
    gather_rows<false>(grads.output, head, task.order, task.num_rows, rows.first, rows.count, 0,
                       task.value_padded, output, lane, kWarp);
  }

  // Leaves r A in `pairs` and dA in the second product.
  __device__ void pair_up(const ShortRows& rows, RowProduct<Number, kWarp>& weights,
                          RowProduct<Number, kWarp>& grads) const {
    const int last = rows.count - 1;
    const int key_stride = row_stride(task.key_padded);
    const int value_stride = row_stride(task.value_padded);
    weights.clear();
    multiply_transposed<kWarp>(query, key_stride, last, task.key_padded, key, key_stride, last,
                               lane, weights);
    grads.clear();
    multiply_transposed<kWarp>(output, value_stride, last, task.value_padded, value, value_stride,
                               last, lane, grads);
    Number total[4] = {}, mixed[4] = {};
    for_each_pair(rows, lane, [&](int a, int part, int c, int, bool same) {
      Number& weight = weights.number[a][part][c];
      weight = same ? weight : Number{0};
      total[a] += weight;
      mixed[a] += same ? weight * grads.number[a][part][c] : Number{0};
    });
    Number scale[4], shift[4];
    unsigned lone = 0;
#pragma unroll
    for (int a = 0; a < 4; ++a) {
      scale[a] = 1 / (sum_of_row(total[a]) + task.epsilon);
      shift[a] = -(scale[a] * sum_of_row(mixed[a])) * scale[a];
      const int alone = __shfl_sync(kAllLanes, rows.alone ? 1 : 0, product_row(lane, a));
      lone |= static_cast<unsigned>(alone) << a;
    }
    for_each_pair(rows, lane, [&](int a, int part, int c, int, bool same) {
      weights.number[a][part][c] *= scale[a];
      Number& grad = grads.number[a][part][c];
      const Number full = scale[a] * grad + shift[a];
      const Number only = task.epsilon * scale[a] * (scale[a] * grad);
      grad = !same ? Number{0} : (lone >> a & 1u) != 0 ? only : full;
    });
    store_pairs(weights, lane, pairs);
  }

  // target rows j = pairs^T block, where the mask, if any, is positive.
  template <int kTile>
  __device__ void write_columns(const ShortRows& rows, const Number* block, int padded,
                                const Number* mask, const HeadTarget<Scalar>& target) const {
    for (int first = 0; first < rows.count; first += kTile) {
      for (int column = 0; column < padded; column += kTile) {
        SumProduct<Number, kTile> result;
        result.clear();
        add_outer_products<kTile>(pairs + first, kPairStride, block + column, row_stride(padded),
                                  rows.count, lane, result);
        result.for_each_piece(lane, [&](int a, int piece, Number* four) {
          write(rows, first + sum_row<kTile>(lane, a), column + piece, four, mask, padded, target);
        });
      }
    }
  }

  // target rows i = pairs block, where the mask is positive.
  template <int kTile>
  __device__ void write_rows(const ShortRows& rows, const Number* block, int padded,
                             const Number* mask, const HeadTarget<Scalar>& target) const {
    for (int column = 0; column < padded; column += kTile) {
      RowProduct<Number, kTile> result;
      result.clear();
      multiply<kTile>(pairs, kPairStride, rows.count - 1, round_up(rows.count, 4), block + column,
                      row_stride(padded), lane, result);
      result.for_each_piece(lane, [&](int a, int piece, Number* four) {
        write(rows, product_row(lane, a), column + piece, four, mask, padded, target);
      });
    }
  }

  __device__ void write(const ShortRows& rows, int i, int column, Number* four, const Number* mask,
                        int padded, const HeadTarget<Scalar>& target) const {
    if (i >= rows.count) return;
    if (mask != nullptr) {
      const Four<Number> numbers = load_four(mask + i * row_stride(padded) + column);
#pragma unroll
      for (int c = 0; c < 4; ++c) four[c] = numbers.number[c] > 0 ? four[c] : Number{0};
    }
    scatter_four(four, target, head, row_of_place(task.order, task.num_rows, rows.first + i),
                 column);
  }
};

template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kShortThreads, 4)
    go_back_short(Task<Scalar> task, Gradients<Scalar> grads) {
  using Number = Compute<Scalar>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  SharedPieces<Number> pieces;
  ShortBlock<Scalar> block{task, blockIdx.y, lane, nullptr, nullptr, nullptr, nullptr, nullptr};
  for (int w = 0; w <= warp; ++w) {
    block.query = pieces.take_rows(kWarp, task.key_padded);
    block.key = pieces.take_rows(kWarp, task.key_padded);
    block.value = pieces.take_rows(kWarp, task.value_padded);
    block.output = pieces.take_rows(kWarp, task.value_padded);
    block.pairs = pieces.take(kWarp * kPairStride);
  }
  for (int turn = 0; turn < kShortTurns; ++turn) {
    const int64_t group =
        static_cast<int64_t>(blockIdx.x) * kShortTurns * kShortWarps + turn * kShortWarps + warp;
    const ShortRows rows = find_short_rows(task, group * kShortRows, lane);
    if (rows.count == 0) continue;
    block.gather(rows, grads);
    __syncwarp();
    RowProduct<Number, kWarp> weights, pair_grads;
    block.pair_up(rows, weights, pair_grads);
    __syncwarp();
    block.template write_columns<kTile>(rows, block.output, task.value_padded, nullptr,
                                        grads.value);
    __syncwarp();
    store_pairs(pair_grads, lane, block.pairs);
    __syncwarp();
    block.template write_rows<kTile>(rows, block.key, task.key_padded, block.query, grads.query);
    block.template write_columns<kTile>(rows, block.query, task.key_padded, block.key, grads.key);
    __syncwarp();
  }
}

}  // namespace cuda
}  // namespace perception3d
