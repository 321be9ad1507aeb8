#include "cuda/attention_rows.cuh"
#include "cuda/set_attention.h"
#include "cuda/set_attention_backward_tiles.cuh"

namespace perception3d {
namespace cuda {
namespace {

// The rows of a warp are queries, the others keys and values.
template <typename Shape>
__global__ void __launch_bounds__(32 * kMostWarps, Shape::kBlocks)
    go_back_to_queries(BackwardCall<typename Shape::Scalar> call,
                       WritableHeadRows<typename Shape::Scalar> grad_query) {
  using Number = typename Shape::Number;
  const auto& forward = call.forward;
  P3D_SHARED(int64_t, ranges, 2 * Shape::kOwnRows);
  int64_t first_other, last_other;
  const OwnRow own =
      find_own_row<Shape>(forward.sets, forward.num_rows, ranges, first_other, last_other);
  const int64_t head = head_of_warp();
  if (head >= forward.rows.heads) return;
  const int width = static_cast<int>(forward.rows.width);
  const int64_t place = own.row * forward.rows.heads + head;

  Number query[Shape::kEach], grad[Shape::kEach], total[Shape::kEach] = {};
  load_part<Shape>(call.grad.at(own.row, head), width, forward.packed, grad);
  load_part<Shape>(call.result.at(own.row, head), width, forward.packed, query);
  Number shift = 0;
#pragma unroll
  for (int i = 0; i < Shape::kEach; ++i) shift += grad[i] * query[i];
  shift = sum_of_parts<Shape>(shift);
  load_part<Shape>(forward.rows.query.at(own.row, head), width, forward.packed, query);
#pragma unroll
  for (int i = 0; i < Shape::kEach; ++i) query[i] *= call.scale * static_cast<Number>(M_LOG2E);
  const Number log_sum = call.log_sum[place];

  for_each_other<Shape>(
      forward, forward.rows.key, forward.rows.value, own, first_other, last_other, head,
      tile_of_warp<Shape>(), [](int, int64_t) {},
      [&](int low, int high, const Number* key, const Number* value, int) {
#pragma unroll 2
        for (int k = 0; k < kOthersAtOnce; ++k) {
          const Number score = dot_parts<Shape>(query, key + k * Shape::kColumns);
          const Number slope = dot_parts<Shape>(grad, value + k * Shape::kColumns);
          if (k < low || k >= high) continue;
          const Number weight = power_of_two(score - log_sum);
          add_part<Shape>(weight * (slope - shift), key + k * Shape::kColumns, total);
        }
      });

  if (!own.exists()) return;
  store_part<Shape>(total, call.scale, width, grad_query.at(own.row, head));
  if (Shape::part() == 0) call.shift[place] = shift;
}

// The rows of a warp are keys and values, the others queries and gradients of results.
template <typename Shape>
__global__ void __launch_bounds__(32 * kMostWarps, Shape::kBlocks)
    go_back_to_keys(BackwardCall<typename Shape::Scalar> call,
                    WritableHeadRows<typename Shape::Scalar> grad_key,
                    WritableHeadRows<typename Shape::Scalar> grad_value) {
  using Number = typename Shape::Number;
  const auto& forward = call.forward;
  P3D_SHARED(int64_t, ranges, 2 * Shape::kOwnRows);
  int64_t first_other, last_other;
  const OwnRow own =
      find_own_row<Shape>(forward.sets, forward.num_rows, ranges, first_other, last_other);
  const int64_t heads = forward.rows.heads, head = head_of_warp();
  if (head >= heads) return;
  const int width = static_cast<int>(forward.rows.width);

  Number key[Shape::kEach], value[Shape::kEach];
  load_part<Shape>(forward.rows.key.at(own.row, head), width, forward.packed, key);
  load_part<Shape>(forward.rows.value.at(own.row, head), width, forward.packed, value);
#pragma unroll
  for (int i = 0; i < Shape::kEach; ++i) key[i] *= call.scale * static_cast<Number>(M_LOG2E);
  Number key_total[Shape::kEach] = {}, value_total[Shape::kEach] = {};

  Number* const tile = tile_of_warp<Shape>();
  Number* const log_sums = tile + 2 * kOthers * Shape::kColumns;
  Number* const shifts = log_sums + kOthers;
  for_each_other<Shape>(
      forward, forward.rows.query, call.grad, own, first_other, last_other, head, tile,
      [&](int i, int64_t row) {
        log_sums[i] = call.log_sum[row * heads + head];
        shifts[i] = call.shift[row * heads + head];
      },
      [&](int low, int high, const Number* query, const Number* grad, int first) {
#pragma unroll 2
        for (int k = 0; k < kOthersAtOnce; ++k) {
          const Number score = dot_parts<Shape>(key, query + k * Shape::kColumns);
          const Number slope = dot_parts<Shape>(value, grad + k * Shape::kColumns);
          if (k < low || k >= high) continue;
          const Number weight = power_of_two(score - log_sums[first + k]);
          add_part<Shape>(weight, grad + k * Shape::kColumns, value_total);
          add_part<Shape>(weight * (slope - shifts[first + k]), query + k * Shape::kColumns,
                          key_total);
        }
      });

  if (!own.exists()) return;
  store_part<Shape>(key_total, call.scale, width, grad_key.at(own.row, head));
  store_part<Shape>(value_total, Number{1}, width, grad_value.at(own.row, head));
}

}  // namespace

template <typename Scalar>
Status set_attention_backward(const HeadRows<Scalar>& grad, const AttentionRows<Scalar>& rows,
                              const HeadRows<Scalar>& result, const Compute<Scalar>* log_sum,
                              const RowSets& sets, int64_t num_rows,
                              const AttentionGradients<Scalar>& gradients,
                              Compute<Scalar>* workspace, Stream stream) {
  if (num_rows == 0 || rows.heads == 0 || rows.width == 0) return nullptr;
  AttentionCall<Scalar> forward = attention_call(rows, sets, num_rows);
  forward.packed =
      forward.packed && reads_quads(grad, rows.width) && reads_quads(result, rows.width);
  const double scale = 1.0 / std::sqrt(static_cast<double>(rows.width));
  const BackwardCall<Scalar> call{forward, grad,      result,
                                  log_sum, workspace, static_cast<Compute<Scalar>>(scale)};
  if constexpr (sizeof(Scalar) == 2) {
    if (fits_tiles(forward) && fits_tiles(grad) && fits_tiles(result)) {
      return with_tiles<Scalar>(rows.width, [&](auto tiles) {
        using Tiles = decltype(tiles);
        const Status status = launch_tiles<Tiles>(go_back_to_query_tiles<Tiles>, num_rows,
                                                  rows.heads, stream, call, gradients.query);
        if (status != nullptr) return status;
        return launch_tiles<Tiles>(go_back_to_key_tiles<Tiles>, num_rows, rows.heads, stream, call,
                                   gradients.key, gradients.value);
      });
    }
  }
  return with_attention_shape<Scalar>(rows.width, [&](auto shape) {
    using Shape = decltype(shape);
    const AttentionLaunch<Shape> plan(num_rows, rows.heads);
    const Status status = launch(go_back_to_queries<Shape>, plan.grid, plan.block(),
                                 plan.shared_bytes(), stream, call, gradients.query);
    if (status != nullptr) return status;
    return launch(go_back_to_keys<Shape>, plan.grid, plan.block(), plan.shared_bytes(), stream,
                  call, gradients.key, gradients.value);
  });
}

#define P3D_INSTANTIATE(Scalar)                                                           \
  template Status set_attention_backward(                                                 \
      const HeadRows<Scalar>&, const AttentionRows<Scalar>&, const HeadRows<Scalar>&,     \
      const Compute<Scalar>*, const RowSets&, int64_t, const AttentionGradients<Scalar>&, \
      Compute<Scalar>*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
