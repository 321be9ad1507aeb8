#include "cuda/linear_attention_plan.cuh"
#include "cuda/linear_attention_short_backward.cuh"
#include "cuda/scattered_linear_attention.h"

// The formulas are those of csrc/cpu/scattered_linear_attention_backward.cpp.  Windows that reach
// over the borders of tiles go through five launches: sums over keys, joined, gradients of queries
// and sums over them, joined, gradients of keys and values.  All others are finished in the first.
namespace perception3d {
namespace cuda {
namespace {

// What the passes over queries keep in shared memory beside the gathered rows.
template <typename Number>
struct QueryScratch {
  Number* w;      // rows S g
  Number* r;      // per row 1 / (q . s + epsilon)
  Number* t;      // per row -r^2 (q . S g)
  Number* parts;  // kWarps * key_padded
};

// For local rows [first, last), whose queries and output gradients are gathered: writes the
// gradients of the queries, and replaces S, s by the gradients dS, ds of these rows.  Ends with a
// barrier.
template <int kTile, typename Scalar, typename Number = Compute<Scalar>>
__device__ __forceinline__ void go_back_to_queries(const Task<Scalar>& task,
                                                   const TileBlock<Scalar>& block, int first,
                                                   int last, const Number* query, Number* output,
                                                   const SharedSums<Number>& sums,
                                                   const QueryScratch<Number>& scratch,
                                                   const HeadTarget<Scalar>& target) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int stride = row_stride(task.key_padded), value_stride = row_stride(task.value_padded);
  const int across = task.key_padded / kTile;
  const int jobs = (last - first + kWarp - 1) / kWarp * across;
  for (int job = warp; job < jobs; job += kWarps) {
    const int begin = first + job / across * kWarp, column = job % across * kTile;
    RowProduct<Number, kTile> result;
    result.clear();
    multiply_transposed<kTile>(output + begin * value_stride, value_stride, last - 1 - begin,
                               task.value_padded, sums.matrix + column * value_stride, value_stride,
                               kTile - 1, lane, result);
    result.for_each_piece(lane, [&](int a, int piece, const Number* four) {
      const int r = begin + product_row(lane, a);
      if (r >= last) return;
      Four<Number> numbers;
#pragma unroll
      for (int c = 0; c < 4; ++c) numbers.number[c] = four[c];
      store_four(numbers, scratch.w + r * stride + column + piece);
    });
  }
  __syncthreads();
  for (int r = first + threadIdx.x; r < last; r += kThreads) {
    const Number* q = query + r * stride;
    const Number reciprocal = 1 / (dot(q, sums.vector, task.key_padded) + task.epsilon);
    scratch.r[r] = reciprocal;
    scratch.t[r] = -(dot(q, scratch.w + r * stride, task.key_padded) * reciprocal) * reciprocal;
  }
  __syncthreads();
  const int pieces = task.key_padded / 4, rows = last - first;
  for (int i = threadIdx.x; i < rows * pieces; i += kThreads) {
    const int r = first + i / pieces, column = i % pieces * 4;
    const Four<Number> q = load_four(query + r * stride + column);
    const Four<Number> s = load_four(sums.vector + column);
    Four<Number> w = load_four(scratch.w + r * stride + column);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const Number grad = scratch.r[r] * w.number[c] + scratch.t[r] * s.number[c];
      w.number[c] = q.number[c] > 0 ? grad : Number{0};
    }
    scatter_four(w.number, target, block.head(), block.row(r), column);
  }
  const int value_pieces = task.value_padded / 4;
  for (int i = threadIdx.x; i < rows * value_pieces; i += kThreads) {
    const int r = first + i / value_pieces;
    Number* numbers = output + r * value_stride + i % value_pieces * 4;
    Four<Number> four = load_four(numbers);
#pragma unroll
    for (int c = 0; c < 4; ++c) four.number[c] *= scratch.r[r];
    store_four(four, numbers);
  }
  __syncthreads();
  sum_rows(query + first * stride, task.key_padded, rows,
           static_cast<const Number*>(scratch.t + first), scratch.parts, sums.vector);
  sum_outer_products<kTile>(query + first * stride, task.key_padded, output + first * value_stride,
                            task.value_padded, rows, sums.matrix);
}

// For local rows [first, last), whose keys and values are gathered: writes their gradients from
// dS, ds.  Ends with a barrier.
template <int kTile, typename Scalar, typename Number = Compute<Scalar>>
__device__ __forceinline__ void go_back_to_keys(const Task<Scalar>& task,
                                                const TileBlock<Scalar>& block, int first, int last,
                                                const Number* key, const Number* value,
                                                const SharedSums<Number>& sums,
                                                const Gradients<Scalar>& grads) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int stride = row_stride(task.key_padded), value_stride = row_stride(task.value_padded);
  const int blocks = (last - first + kWarp - 1) / kWarp;
  const int of_keys = task.key_padded / kTile, across = of_keys + task.value_padded / kTile;
  for (int job = warp; job < blocks * across; job += kWarps) {
    const int begin = first + job / across * kWarp, part = job % across;
    RowProduct<Number, kTile> result;
    result.clear();
    if (part < of_keys) {
      const int column = part * kTile;
      multiply_transposed<kTile>(value + begin * value_stride, value_stride, last - 1 - begin,
                                 task.value_padded, sums.matrix + column * value_stride,
                                 value_stride, kTile - 1, lane, result);
      result.for_each_piece(lane, [&](int a, int piece, Number* four) {
        const int r = begin + product_row(lane, a);
        if (r >= last) return;
        const Four<Number> k = load_four(key + r * stride + column + piece);
        const Four<Number> s = load_four(sums.vector + column + piece);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          four[c] = k.number[c] > 0 ? four[c] + s.number[c] : Number{0};
        }
        scatter_four(four, grads.key, block.head(), block.row(r), column + piece);
      });
    } else {
      const int column = (part - of_keys) * kTile;
      multiply<kTile>(key + begin * stride, stride, last - 1 - begin, task.key_padded,
                      sums.matrix + column, value_stride, lane, result);
      result.for_each_piece(lane, [&](int a, int piece, const Number* four) {
        const int r = begin + product_row(lane, a);
        if (r >= last) return;
        scatter_four(four, grads.value, block.head(), block.row(r), column + piece);
      });
    }
  }
  __syncthreads();
}

// Sums over the keys of every window in the tile; all gradients of the windows that lie inside it.
template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kThreads, 3)
    go_back_inside(Task<Scalar> task, Gradients<Scalar> grads, Compute<Scalar>* slots) {
  using Number = Compute<Scalar>;
  const TileBlock<Scalar> block(task);
  SharedPieces<Number> pieces;
  Window* windows = pieces.template take_as<Window>(task.tile_rows);
  Number* query = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* key = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* w = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* value = pieces.take_rows(task.tile_rows, task.value_padded);
  Number* output = pieces.take_rows(task.tile_rows, task.value_padded);
  const SharedSums<Number> sums{pieces.take(task.matrix_size()), pieces.take(task.key_padded)};
  Number* parts = pieces.take(kWarps * task.key_padded);
  const QueryScratch<Number> scratch{w, pieces.take(task.tile_rows), pieces.take(task.tile_rows),
                                     parts};
  const int stride = row_stride(task.key_padded), value_stride = row_stride(task.value_padded);

  block.template gather<true>(task.key, 0, block.rows(), task.key_padded, key);
  block.template gather<false>(task.value, 0, block.rows(), task.value_padded, value);
  block.find_windows(windows);
  __syncthreads();
  block.for_each_window(windows, [&](const Window& window, int first, int last) {
    if (window.crosses(task.tile_rows)) return;
    block.template gather<true>(task.query, first, last, task.key_padded, query);
    block.template gather<false>(grads.output, first, last, task.value_padded, output);
  });
  block.for_each_window(windows, [&](const Window& window, int first, int last) {
    sum_rows(key + first * stride, task.key_padded, last - first,
             static_cast<const Number*>(nullptr), parts, sums.vector);
    sum_outer_products<kTile>(key + first * stride, task.key_padded, value + first * value_stride,
                              task.value_padded, last - first, sums.matrix);
    if (window.crosses(task.tile_rows)) {
      store_sums(task, sums, block.own_slot(slots, window));
      __syncthreads();
    } else {
      go_back_to_queries<kTile>(task, block, first, last, query, output, sums, scratch,
                                grads.query);
      go_back_to_keys<kTile>(task, block, first, last, key, value, sums, grads);
    }
  });
}

// Gradients of queries of the windows that reach over the borders of tiles, and the sums over them.
template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kThreads, 3)
    go_back_crossing_queries(Task<Scalar> task, Gradients<Scalar> grads, Compute<Scalar>* slots,
                             Compute<Scalar>* grad_slots) {
  using Number = Compute<Scalar>;
  const TileBlock<Scalar> block(task);
  SharedPieces<Number> pieces;
  Number* query = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* w = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* output = pieces.take_rows(task.tile_rows, task.value_padded);
  const SharedSums<Number> sums{pieces.take(task.matrix_size()), pieces.take(task.key_padded)};
  Number* parts = pieces.take(kWarps * task.key_padded);
  const QueryScratch<Number> scratch{w, pieces.take(task.tile_rows), pieces.take(task.tile_rows),
                                     parts};
  block.for_each_crossing([&](const Window& window, int first, int last) {
    block.template gather<true>(task.query, first, last, task.key_padded, query);
    block.template gather<false>(grads.output, first, last, task.value_padded, output);
    load_sums(task, block.joined_slot(slots, window), sums);
    go_back_to_queries<kTile>(task, block, first, last, query, output, sums, scratch, grads.query);
    store_sums(task, sums, block.own_slot(grad_slots, window));
    __syncthreads();
  });
}

// Gradients of their keys and values.
template <int kTile, typename Scalar>
__global__ void __launch_bounds__(kThreads, 3)
    go_back_crossing_keys(Task<Scalar> task, Gradients<Scalar> grads, Compute<Scalar>* grad_slots) {
  using Number = Compute<Scalar>;
  const TileBlock<Scalar> block(task);
  SharedPieces<Number> pieces;
  Number* key = pieces.take_rows(task.tile_rows, task.key_padded);
  Number* value = pieces.take_rows(task.tile_rows, task.value_padded);
  const SharedSums<Number> sums{pieces.take(task.matrix_size()), pieces.take(task.key_padded)};
  block.for_each_crossing([&](const Window& window, int first, int last) {
    block.template gather<true>(task.key, first, last, task.key_padded, key);
    block.template gather<false>(task.value, first, last, task.value_padded, value);
    load_sums(task, block.joined_slot(grad_slots, window), sums);
    go_back_to_keys<kTile>(task, block, first, last, key, value, sums, grads);
  });
}

template <int kTile, typename Scalar>
Status run(const Task<Scalar>& task, const Gradients<Scalar>& grads, const Plan& plan,
           Compute<Scalar>* slots, Stream stream) {
  const int64_t count = plan.tiles(task.num_rows);
  const Grid tiles(count, task.heads);
  const Grid places((task.num_rows + kShortPlaces - 1) / kShortPlaces, task.heads);
  const size_t shared = plan.shared_backward();
  Compute<Scalar>* grad_slots = slots + 2 * count * task.heads * task.slot_size();
  Status status = launch(go_back_short<kTile, Scalar>, places, kShortThreads,
                         short_shared_bytes(plan, true), stream, task, grads);
  if (status == nullptr) {
    status =
        launch(go_back_inside<kTile, Scalar>, tiles, kThreads, shared, stream, task, grads, slots);
  }
  if (status == nullptr) {
    status = launch(join_slots<Scalar>, tiles, kThreads, 0, stream, task, slots);
  }
  if (status == nullptr) {
    status = launch(go_back_crossing_queries<kTile, Scalar>, tiles, kThreads, shared, stream, task,
                    grads, slots, grad_slots);
  }
  if (status == nullptr) {
    status = launch(join_slots<Scalar>, tiles, kThreads, 0, stream, task, grad_slots);
  }
  if (status == nullptr) {
    status = launch(go_back_crossing_keys<kTile, Scalar>, tiles, kThreads, shared, stream, task,
                    grads, grad_slots);
  }
  return status;
}

}  // namespace

template <typename Scalar>
Status scattered_linear_attention_backward(const LinearAttention<Scalar>& attention,
                                           int64_t num_rows, const HeadRows<Scalar>& grad,
                                           const WritableHeadRows<Scalar>& grad_query,
                                           const WritableHeadRows<Scalar>& grad_key,
                                           const WritableHeadRows<Scalar>& grad_value,
                                           void* workspace, Stream stream) {
  const Plan plan = make_plan(attention, true);
  if (!plan.fits()) return kTooWide;
  const Task<Scalar> task = make_task(attention, num_rows, plan);
  const Gradients<Scalar> grads{
      source_of(grad, attention.value_width), target_of(grad_query, attention.key_width),
      target_of(grad_key, attention.key_width), target_of(grad_value, attention.value_width)};
  auto* slots = static_cast<Compute<Scalar>*>(workspace);
  return plan.tile == kLargeTile<Scalar> ? run<kLargeTile<Scalar>>(task, grads, plan, slots, stream)
                                         : run<16>(task, grads, plan, slots, stream);
}

#define P3D_INSTANTIATE(Scalar)                                         \
  template Status scattered_linear_attention_backward(                  \
      const LinearAttention<Scalar>&, int64_t, const HeadRows<Scalar>&, \
      const WritableHeadRows<Scalar>&, const WritableHeadRows<Scalar>&, \
      const WritableHeadRows<Scalar>&, void*, Stream);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
