#include <cmath>

#include "cpu/attention_lanes.h"
#include "cpu/attention_tasks.h"
#include "cpu/set_attention.h"

namespace perception3d {
namespace {

template <typename Scalar>
struct Inputs {
  AttentionRows<Scalar> rows;
  HeadRows<Scalar> grad, result;
  const Compute<Scalar>* log_sum;
};

// One head of one set.
struct Part {
  const int64_t* order;  // rows of the set
  int64_t count;
  int64_t head;
  int64_t next_count;  // rows of the set that follows
};

// A vector of queries: their rows, and the same transposed.
template <typename Number, typename Vec>
struct QueryLanes {
  Number *query, *grad, *result;  // (kCount, padded)
  Vec *query_lanes, *grad_lanes;  // (padded, kCount); query scaled so that scores are powers of 2
  Vec *weight, *slope;            // (keys, kCount): softmax, and gradient of the scores
  Vec* total;                     // (padded, kCount)
  Vec log_sum, shift;             // shift: grad . result
};

// The keys of a set, and their sums.
template <typename Number>
struct KeyRows {
  const Number **key, **value;    // rows
  Number *grad_key, *grad_value;  // (keys, padded)
};

template <int kBytes, typename Scalar, typename Number, typename Vec>
P3D_INLINE void load_queries(const Inputs<Scalar>& in, const Part& part, int64_t begin,
                             int64_t queries, int64_t padded, Number scale,
                             QueryLanes<Number, Vec>& lanes) {
  constexpr int64_t count = LaneTypes<Number, kBytes>::kCount;
  const int64_t width = in.rows.width, head = part.head;
  const int64_t* order = part.order + begin;
  pack_rows(in.rows.query, order, queries, head, width, padded, lanes.query);
  pack_rows(in.grad, order, queries, head, width, padded, lanes.grad);
  pack_rows(in.result, order, queries, head, width, padded, lanes.result);
  lanes.log_sum = lanes.shift = Vec{};
  for (int64_t i = 0; i < queries; ++i) {
    lanes.log_sum[i] = in.log_sum[order[i] * in.rows.heads + head];
    Number dot = 0;
    for (int64_t d = 0; d < width; ++d) {
      dot += lanes.grad[i * padded + d] * lanes.result[i * padded + d];
    }
    lanes.shift[i] = dot;
  }
  static_assert(count <= 16, "a square of lanes has to fit into registers");
  // Lanes without a query repeat the last one: what lies in memory may be any numbers.
  const Number *query_rows[count], *grad_rows[count];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = std::min(i, queries - 1);
    query_rows[i] = lanes.query + row * padded;
    grad_rows[i] = lanes.grad + row * padded;
    lanes.log_sum[i] = lanes.log_sum[row];
    lanes.shift[i] = lanes.shift[row];
  }
  lanes_from_rows<Number, kBytes>(query_rows, width, scale, lanes.query_lanes);
  lanes_from_rows<Number, kBytes>(grad_rows, width, Number{1}, lanes.grad_lanes);
}

template <int kBytes, typename Scalar>
P3D_INLINE void go_back(const Inputs<Scalar>& in, const Part& part, AttentionScratch& scratch,
                        const AttentionGradients<Scalar>& gradients) {
  using Number = Compute<Scalar>;
  using Vec = typename LaneTypes<Number, kBytes>::Vec;
  constexpr int64_t lanes = LaneTypes<Number, kBytes>::kCount;
  const int64_t width = in.rows.width, keys = part.count;
  const int64_t padded = (width + lanes - 1) / lanes * lanes;
  scratch.reserve(sizeof(Number) * (2 * keys * (width + padded + lanes) + 6 * lanes * padded) +
                      2 * keys * sizeof(Number*),
                  14);
  Number* key = scratch.take<Number>(keys * width);
  Number* value = scratch.take<Number>(keys * width);
  const KeyRows<Number> sums{scratch.take<const Number*>(keys), scratch.take<const Number*>(keys),
                             scratch.take<Number>(keys * padded),
                             scratch.take<Number>(keys * padded)};
  QueryLanes<Number, Vec> block{};
  block.query = scratch.take<Number>(lanes * padded);
  block.grad = scratch.take<Number>(lanes * padded);
  block.result = scratch.take<Number>(lanes * padded);
  block.query_lanes = scratch.take<Vec>(padded);
  block.grad_lanes = scratch.take<Vec>(padded);
  block.total = scratch.take<Vec>(padded);
  block.weight = scratch.take<Vec>(keys);
  block.slope = scratch.take<Vec>(keys);
  const int64_t* next = part.order + keys;
  list_rows(in.rows.key, part.order, keys, part.head, width, key, sums.key);
  list_rows(in.rows.value, part.order, keys, part.head, width, value, sums.value);
  // What the next set needs is fetched in pieces, with work between them.
  prefetch_rows(in.rows.key, next, part.next_count, part.head, width);
  prefetch_rows(in.rows.value, next, part.next_count, part.head, width);
  std::fill_n(sums.grad_key, keys * padded, Number{0});
  std::fill_n(sums.grad_value, keys * padded, Number{0});

  const Number scale = Number{1} / std::sqrt(static_cast<Number>(width));
  for (int64_t begin = 0; begin < keys; begin += lanes) {
    const int64_t queries = std::min(lanes, keys - begin);
    load_queries<kBytes>(in, part, begin, queries, padded, scale * Number(M_LOG2E), block);
    prefetch_written(gradients.query, part.order + begin, queries, part.head, width);
    if (begin + lanes >= keys) {  // the last queries
      prefetch_written(gradients.key, part.order, keys, part.head, width);
      prefetch_written(gradients.value, part.order, keys, part.head, width);
    }
    dot_all_rows(sums.key, keys, block.query_lanes, width, block.weight);
    dot_all_rows(sums.value, keys, block.grad_lanes, width, block.slope);
    for (int64_t k = 0; k < keys; ++k) {
      Vec weight = block.weight[k] - block.log_sum;
      exp2_lanes<kBytes>(weight);
      block.weight[k] = weight;
      block.slope[k] = weight * (block.slope[k] - block.shift) * scale;
    }
    for (int64_t d = 0; d < width; ++d) block.total[d] = Vec{};
    add_all_rows(sums.key, keys, block.slope, width, block.total);
    add_all_outer(block.weight, keys, reinterpret_cast<const Vec*>(block.grad), queries,
                  padded / lanes, reinterpret_cast<Vec*>(sums.grad_value));
    add_all_outer(block.slope, keys, reinterpret_cast<const Vec*>(block.query), queries,
                  padded / lanes, reinterpret_cast<Vec*>(sums.grad_key));
    Scalar* target[lanes];
    for (int64_t i = 0; i < lanes; ++i) {
      target[i] = i < queries ? gradients.query.at(part.order[begin + i], part.head)
                              : reinterpret_cast<Scalar*>(block.result);  // not needed any more
    }
    rows_from_lanes<Number, kBytes>(block.total, width, Vec{} + Number{1}, target);
    if (begin == 0) prefetch_rows(in.rows.query, next, part.next_count, part.head, width);
  }
  prefetch_rows(in.grad, next, part.next_count, part.head, width);
  prefetch_rows(in.result, next, part.next_count, part.head, width);
  unpack_rows(sums.grad_key, keys, padded, part.order, part.head, width, gradients.key);
  unpack_rows(sums.grad_value, keys, padded, part.order, part.head, width, gradients.value);
}

// One function per scalar type and machine.
#define P3D_DEFINE(attributes, bytes)                                             \
  attributes void go_back_part(const Inputs<P3D_SCALAR>& in, const Part& part,    \
                               AttentionScratch& scratch,                         \
                               const AttentionGradients<P3D_SCALAR>& gradients) { \
    go_back<bytes>(in, part, scratch, gradients);                                 \
  }
#define P3D_SCALAR float
P3D_FOR_EACH_MACHINE(P3D_DEFINE)
#undef P3D_SCALAR
#define P3D_SCALAR double
P3D_FOR_EACH_MACHINE(P3D_DEFINE)
#undef P3D_SCALAR
#define P3D_SCALAR BFloat16
P3D_FOR_EACH_MACHINE(P3D_DEFINE)
#undef P3D_SCALAR
#define P3D_SCALAR Float16
P3D_FOR_EACH_MACHINE(P3D_DEFINE)
#undef P3D_SCALAR
#undef P3D_DEFINE

}  // namespace

template <typename Scalar>
void set_attention_backward(const HeadRows<Scalar>& grad, const AttentionRows<Scalar>& rows,
                            const HeadRows<Scalar>& result, const Compute<Scalar>* log_sum,
                            const RowSets& sets, const AttentionGradients<Scalar>& gradients,
                            int threads) {
  const Inputs<Scalar> in{rows, grad, result, log_sum};
  for_each_part(sets, rows.heads, false, threads, [&](int64_t set, int64_t, int64_t, int64_t head) {
    static thread_local AttentionScratch scratch;
    const int64_t begin = sets.offsets[set];
    const Part part{sets.order + begin, sets.offsets[set + 1] - begin, head, next_count(sets, set)};
    go_back_part(in, part, scratch, gradients);
  });
}

#define P3D_INSTANTIATE(Scalar)                                                               \
  template void set_attention_backward(const HeadRows<Scalar>&, const AttentionRows<Scalar>&, \
                                       const HeadRows<Scalar>&, const Compute<Scalar>*,       \
                                       const RowSets&, const AttentionGradients<Scalar>&, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
