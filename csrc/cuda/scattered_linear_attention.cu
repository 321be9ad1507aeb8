#include "cuda/linear_attention_plan.cuh"
#include "cuda/linear_attention_short.cuh"
#include "cuda/scattered_linear_attention.h"

namespace perception3d {
namespace cuda {
namespace {

template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kShortThreads, 4)
    attend_short(Task<Scalar> task, HeadTarget<Scalar> output) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t head = blockIdx.y;
  using Number = Compute<Scalar>;
  SharedPieces<Number> pieces;
  Number *query = nullptr, *key = nullptr, *value = nullptr, *pairs = nullptr;
  for (int w = 0; w <= warp; ++w) {
    query = pieces.take_rows(kWarp, task.key_padded);
    key = pieces.take_rows(kWarp, task.key_padded);
    value = pieces.take_rows(kWarp, task.value_padded);
    pairs = pieces.take(kWarp * kPairStride);
  }
  for (int turn = 0; turn < kShortTurns; ++turn) {
    const int64_t group =
        static_cast<int64_t>(blockIdx.x) * kShortTurns * kShortWarps + turn * kShortWarps + warp;
    const ShortRows rows = find_short_rows(task, group * kShortRows, lane);
    if (rows.count == 0) continue;
    const int last = rows.count - 1, inner = round_up(rows.count, 4);
    gather_rows<true>(task.query, head, task.order, task.num_rows, rows.first, rows.count, 0,
                      task.key_padded, query, lane, kWarp);
    gather_rows<true>(task.key, head, task.order, task.num_rows, rows.first, rows.count, 0,
                      task.key_padded, key, lane, kWarp);
    gather_rows<false>(task.value, head, task.order, task.num_rows, rows.first, rows.count,
                       inner - rows.count, task.value_padded, value, lane, kWarp);
    __syncwarp();
    RowProduct<Number, kWarp> weights;
    weights.clear();
    const int key_stride = row_stride(task.key_padded);
    multiply_transposed<kWarp>(query, key_stride, last, task.key_padded, key, key_stride, last,
                               lane, weights);
    Number total[4] = {};
    for_each_pair(rows, lane, [&](int a, int part, int c, int, bool same) {
      Number& weight = weights.number[a][part][c];
      weight = same ? weight : Number{0};
      total[a] += weight;
    });
#pragma unroll
    for (int a = 0; a < 4; ++a) {
      const Number scale = 1 / (sum_of_row(total[a]) + task.epsilon);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
#pragma unroll
        for (int c = 0; c < 4; ++c) weights.number[a][part][c] *= scale;
      }
    }
    store_pairs(weights, lane, pairs);
    __syncwarp();
    for (int column = 0; column < task.value_padded; column += kTile) {
      RowProduct<Number, kTile> result;
      result.clear();
      multiply<kTile>(pairs, kPairStride, last, inner, value + column,
                      row_stride(task.value_padded), lane, result);
      result.for_each_piece(lane, [&](int a, int piece, const Number* four) {
        const int i = product_row(lane, a);
        if (i > last) return;
        const int64_t row = row_of_place(task.order, task.num_rows, rows.first + i);
        scatter_four(four, output, head, row, column + piece);
      });
    }
    __syncwarp();
  }
}

// Writes the outputs of local rows [first, last), whose queries are gathered.  Ends with a barrier.
template <int kTile, typename Scalar>
__device__ __forceinline__ void write_outputs(const Task<Scalar>& task,
                                              const TileBlock<Scalar>& block, int first, int last,
                                              const Compute<Scalar>* query,
                                              const SharedSums<Compute<Scalar>>& sums,
                                              Compute<Scalar>* scale,
                                              const HeadTarget<Scalar>& output) {
  using Number = Compute<Scalar>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int stride = row_stride(task.key_padded);
  for (int r = first + threadIdx.x; r < last; r += kThreads) {
    scale[r] = 1 / (dot(query + r * stride, sums.vector, task.key_padded) + task.epsilon);
  }
  __syncthreads();
  const int across = task.value_padded / kTile;
  const int jobs = (last - first + kWarp - 1) / kWarp * across;
  for (int job = warp; job < jobs; job += kWarps) {
    const int begin = first + job / across * kWarp, column = job % across * kTile;
    RowProduct<Number, kTile> result;
    result.clear();
    multiply<kTile>(query + begin * stride, stride, last - 1 - begin, task.key_padded,
                    sums.matrix + column, row_stride(task.value_padded), lane, result);
    result.for_each_piece(lane, [&](int a, int piece, Number* four) {
      const int r = begin + product_row(lane, a);
      if (r >= last) return;
#pragma unroll
      for (int c = 0; c < 4; ++c) four[c] *= scale[r];
      scatter_four(four, output, block.head(), block.row(r), column + piece);
    });
  }
  __syncthreads();
}

// Sums over the keys of every window in the tile; outputs of the windows that lie inside it.
template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kThreads, 3)
    sum_keys(Task<Scalar> task, HeadTarget<Scalar> output, Compute<Scalar>* slots) {
  const TileBlock<Scalar> block(task);
  using Number = Compute<Scalar>;
  SharedPieces<Number> pieces;
  Window* windows = pieces.template take_as<Window>(task.tile_rows);
  Number* query = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* key = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* value = pieces.take_rows(task.tile_rows, task.value_padded);
  const SharedSums<Number> sums{pieces.take(task.matrix_size()), pieces.take(task.key_padded)};
  Number* scratch = pieces.take(kWarps * task.key_padded);
  Number* scale = pieces.take(task.tile_rows);

  block.template gather<true>(task.key, 0, block.rows(), task.key_padded, key);
  block.template gather<false>(task.value, 0, block.rows(), task.value_padded, value);
  block.find_windows(windows);
  __syncthreads();
  block.for_each_window(windows, [&](const Window& window, int first, int last) {
    if (window.crosses(task.tile_rows)) return;
    block.template gather<true>(task.query, first, last, task.key_padded, query);
  });
  const int key_stride = row_stride(task.key_padded);
  block.for_each_window(windows, [&](const Window& window, int first, int last) {
    sum_rows(key + first * key_stride, task.key_padded, last - first,
             static_cast<const Number*>(nullptr), scratch, sums.vector);
    sum_outer_products<kTile>(key + first * key_stride, task.key_padded,
                              value + first * row_stride(task.value_padded), task.value_padded,
                              last - first, sums.matrix);
    if (window.crosses(task.tile_rows)) {
      store_sums(task, sums, block.own_slot(slots, window));
      __syncthreads();
    } else {
      write_outputs<kTile>(task, block, first, last, query, sums, scale, output);
    }
  });
}

// Outputs of the windows that reach over the borders of tiles, from their joined sums.
template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kThreads, 3)
    attend_crossing(Task<Scalar> task, HeadTarget<Scalar> output, Compute<Scalar>* slots) {
  const TileBlock<Scalar> block(task);
  using Number = Compute<Scalar>;
  SharedPieces<Number> pieces;
  Number* query = pieces.take_rows(task.tile_rows, task.key_padded);
  const SharedSums<Number> sums{pieces.take(task.matrix_size()), pieces.take(task.key_padded)};
  Number* scale = pieces.take(task.tile_rows);
  block.for_each_crossing([&](const Window& window, int first, int last) {
    block.template gather<true>(task.query, first, last, task.key_padded, query);
    load_sums(task, block.joined_slot(slots, window), sums);
    write_outputs<kTile>(task, block, first, last, query, sums, scale, output);
  });
}

template <int kTile, typename Scalar>
Status run(const Task<Scalar>& task, const HeadTarget<Scalar>& output, const Plan& plan,
           Compute<Scalar>* slots, Stream stream) {
  const Grid tiles(plan.tiles(task.num_rows), task.heads);
  const Grid places((task.num_rows + kShortPlaces - 1) / kShortPlaces, task.heads);
  const size_t shared = plan.shared_forward();
  Status status = launch(attend_short<kTile, Scalar>, places, kShortThreads,
                         short_shared_bytes(plan, false), stream, task, output);
  if (status == nullptr) {
    status = launch(sum_keys<kTile, Scalar>, tiles, kThreads, shared, stream, task, output, slots);
  }
  if (status == nullptr) {
    status = launch(join_slots<Scalar>, tiles, kThreads, 0, stream, task, slots);
  }
  if (status == nullptr) {
    status = launch(attend_crossing<kTile, Scalar>, tiles, kThreads, shared, stream, task, output,
                    slots);
  }
  return status;
}

}  // namespace

template <typename Scalar>
int64_t linear_attention_workspace_bytes(const LinearAttention<Scalar>& attention, int64_t num_rows,
                                         bool backward) {
  const Plan plan = make_plan(attention, backward);
  if (!plan.fits()) return -1;
  const Task<Scalar> task = make_task(attention, num_rows, plan);
  const int64_t slots = 2 * plan.tiles(num_rows) * attention.heads * (backward ? 2 : 1);
  return plan.bytes_of(slots * task.slot_size());
}

template <typename Scalar>
Status scattered_linear_attention(const LinearAttention<Scalar>& attention, int64_t num_rows,
                                  const WritableHeadRows<Scalar>& output, void* workspace,
                                  Stream stream) {
  const Plan plan = make_plan(attention, false);
  if (!plan.fits()) return kTooWide;
  const Task<Scalar> task = make_task(attention, num_rows, plan);
  const HeadTarget<Scalar> target = target_of(output, attention.value_width);
  auto* slots = static_cast<Compute<Scalar>*>(workspace);
  return plan.tile == kLargeTile<Scalar>
             ? run<kLargeTile<Scalar>>(task, target, plan, slots, stream)
             : run<16>(task, target, plan, slots, stream);
}

#define P3D_INSTANTIATE(Scalar)                                                              \
  template int64_t linear_attention_workspace_bytes(const LinearAttention<Scalar>&, int64_t, \
                                                    bool);                                   \
  template Status scattered_linear_attention(const LinearAttention<Scalar>&, int64_t,        \
                                             const WritableHeadRows<Scalar>&, void*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
