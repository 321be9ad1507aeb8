#include "cuda/attention_rows.cuh"
#include "cuda/set_attention.h"
#include "cuda/set_attention_tiles.cuh"

namespace perception3d {
namespace cuda {
namespace {

// The rows of a warp are queries, the others keys and values.
template <typename Shape>
__global__ void __launch_bounds__(32 * kMostWarps, Shape::kBlocks)
    attend(AttentionCall<typename Shape::Scalar> call, typename Shape::Number scale,
           typename Shape::Scalar* result, typename Shape::Number* log_sum) {
  using Number = typename Shape::Number;
  P3D_SHARED(int64_t, ranges, 2 * Shape::kOwnRows);
  int64_t first_other, last_other;
  const OwnRow own = find_own_row<Shape>(call.sets, call.num_rows, ranges, first_other, last_other);
  const int64_t head = head_of_warp();
  if (head >= call.rows.heads) return;
  const int width = static_cast<int>(call.rows.width);

  Number query[Shape::kEach], total[Shape::kEach] = {};
  load_part<Shape>(call.rows.query.at(own.row, head), width, call.packed, query);
#pragma unroll
  for (int i = 0; i < Shape::kEach; ++i) query[i] *= scale;
  Number largest = -static_cast<Number>(INFINITY), sum = 0;

  for_each_other<Shape>(
      call, call.rows.key, call.rows.value, own, first_other, last_other, head,
      tile_of_warp<Shape>(), [](int, int64_t) {},
      [&](int low, int high, const Number* key, const Number* value, int) {
        Number score[kOthersAtOnce];
#pragma unroll
        for (int k = 0; k < kOthersAtOnce; ++k) {
          score[k] = dot_parts<Shape>(query, key + k * Shape::kColumns);
        }
        if (low >= high) return;  // nobody of this set
        Number top = largest;
#pragma unroll
        for (int k = 0; k < kOthersAtOnce; ++k) {
          if (k >= low && k < high && score[k] > top) top = score[k];
        }
        // What was summed up so far was relative to another maximum.
        const Number shrink = power_of_two(largest - top);
        largest = top;
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < Shape::kEach; ++i) total[i] *= shrink;
#pragma unroll
        for (int k = 0; k < kOthersAtOnce; ++k) {
          if (k < low || k >= high) continue;
          const Number weight = power_of_two(score[k] - top);
          sum += weight;
          add_part<Shape>(weight, value + k * Shape::kColumns, total);
        }
      });

  if (!own.exists()) return;
  const int64_t place = own.row * call.rows.heads + head;
  store_part<Shape>(total, Number{1} / sum, width, result + place * width);
  if (log_sum != nullptr && Shape::part() == 0) log_sum[place] = largest + log_of_two(sum);
}

}  // namespace

template <typename Scalar>
Status set_attention(const AttentionRows<Scalar>& rows, const RowSets& sets, int64_t num_rows,
                     Scalar* result, Compute<Scalar>* log_sum, Stream stream) {
  if (num_rows == 0 || rows.heads == 0) return nullptr;
  // Base 2: exp(x) = 2^(x log2 e).
  const double scale = M_LOG2E / std::sqrt(static_cast<double>(std::max<int64_t>(rows.width, 1)));
  const auto call = attention_call(rows, sets, num_rows);
  if constexpr (sizeof(Scalar) == 2) {
    if (fits_tiles(call)) {
      return with_tiles<Scalar>(rows.width, [&](auto tiles) {
        using Tiles = decltype(tiles);
        return launch_tiles<Tiles>(attend_tiles<Tiles>, num_rows, rows.heads, stream, call,
                                   static_cast<float>(scale), result, log_sum);
      });
    }
  }
  return with_attention_shape<Scalar>(rows.width, [&](auto shape) {
    using Shape = decltype(shape);
    const AttentionLaunch<Shape> plan(num_rows, rows.heads);
    return launch(attend<Shape>, plan.grid, plan.block(), plan.shared_bytes(), stream, call, scale,
                  result, log_sum);
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                 \
  template Status set_attention(const AttentionRows<Scalar>&, const RowSets&, int64_t, Scalar*, \
                                Compute<Scalar>*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
