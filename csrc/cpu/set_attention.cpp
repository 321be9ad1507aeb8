#include "cpu/set_attention.h"

#include <cmath>
#include <limits>

#include "cpu/attention_lanes.h"
#include "cpu/attention_tasks.h"

namespace perception3d {
namespace {

// Keys whose scores are held at once; longer sets are taken piece by piece.
constexpr int64_t kKeysAtOnce = 128;

// Queries of one head against the keys of their set.
template <typename Scalar>
struct Part {
  const int64_t* order;  // rows of the set
  int64_t count;
  int64_t query_begin, query_end;
  int64_t head;
  int64_t next_count;  // rows of the set that follows
};

// Running softmax of one vector of queries over all keys.  key and value: (count, width);
// query: (width, kCount), scaled so that scores are powers of 2; scores: room for kKeysAtOnce.
// Fills total (width, kCount), and returns the sum and the largest score.
template <int kBytes, typename Number, typename Vec>
P3D_INLINE void attend_lanes(const Vec* query, const Number* key, const Number* value,
                             int64_t count, int64_t width, Vec* scores, Vec* total, Vec& sum,
                             Vec& largest) {
  largest = Vec{} - std::numeric_limits<Number>::infinity();
  sum = Vec{};
  for (int64_t d = 0; d < width; ++d) total[d] = Vec{};
  for (int64_t begin = 0; begin < count; begin += kKeysAtOnce) {
    const int64_t keys = std::min(kKeysAtOnce, count - begin);
    dot_all_rows(key + begin * width, keys, width, query, width, scores);
    Vec top = largest;
    for (int64_t k = 0; k < keys; ++k) top = scores[k] > top ? scores[k] : top;
    if (begin > 0) {  // what was summed up so far was relative to another maximum
      Vec shrink = largest - top;
      exp2_lanes<kBytes>(shrink);
      sum *= shrink;
      for (int64_t d = 0; d < width; ++d) total[d] *= shrink;
    }
    largest = top;
    for (int64_t k = 0; k < keys; ++k) {
      Vec weight = scores[k] - top;
      exp2_lanes<kBytes>(weight);
      scores[k] = weight;
      sum += weight;
    }
    add_all_rows(value + begin * width, keys, width, scores, width, total);
  }
}

template <int kBytes, typename Scalar>
P3D_INLINE void attend_part(const AttentionRows<Scalar>& rows, const Part<Scalar>& part,
                            AttentionScratch& scratch, Scalar* result, Compute<Scalar>* log_sum) {
  using Number = Compute<Scalar>;
  using Vec = typename LaneTypes<Number, kBytes>::Vec;
  constexpr int64_t lanes = LaneTypes<Number, kBytes>::kCount;
  const int64_t width = rows.width;
  const int64_t padded = (width + lanes - 1) / lanes * lanes;
  const int64_t keys = std::min(kKeysAtOnce, part.count);
  scratch.reserve(sizeof(Number) * (2 * part.count * width + lanes * (3 * padded + keys)), 6);
  Number* key = scratch.take<Number>(part.count * width);
  Number* value = scratch.take<Number>(part.count * width);
  Number* line = scratch.take<Number>(lanes * padded);
  Vec* query = scratch.take<Vec>(padded);
  Vec* total = scratch.take<Vec>(padded);
  Vec* scores = scratch.take<Vec>(keys);
  const int64_t* next = part.order + part.count;
  prefetch_rows(rows.key, next, part.next_count, part.head, width);
  pack_rows(rows.key, part.order, part.count, part.head, width, width, key);
  prefetch_rows(rows.value, next, part.next_count, part.head, width);
  pack_rows(rows.value, part.order, part.count, part.head, width, width, value);
  prefetch_rows(rows.query, next, part.next_count, part.head, width);
  // Base 2: exp(x) = 2^(x log2 e).
  const Number scale = Number(M_LOG2E) / std::sqrt(static_cast<Number>(width));
  for (int64_t begin = part.query_begin; begin < part.query_end; begin += lanes) {
    const int64_t queries = std::min(lanes, part.query_end - begin);
    pack_rows(rows.query, part.order + begin, queries, part.head, width, padded, line);
    prefetch_written(result, part.order + begin, queries, part.head, rows.heads, width);
    lanes_from_rows<Number, kBytes>(line, padded, scale, query);
    Vec sum, largest;
    attend_lanes<kBytes, Number>(query, key, value, part.count, width, scores, total, sum, largest);
    const Vec share = Number{1} / sum;
    rows_from_lanes<Number, kBytes>(total, padded, share, line);
    unpack_rows(line, queries, padded, part.order + begin, part.head, rows.heads, width, result);
    if (log_sum == nullptr) continue;
    for (int64_t i = 0; i < queries; ++i) {
      log_sum[part.order[begin + i] * rows.heads + part.head] = largest[i] + std::log2(sum[i]);
    }
  }
}

// One function per scalar type and machine.
#define P3D_DEFINE(attributes, bytes)                                                         \
  attributes void attend(const AttentionRows<P3D_SCALAR>& rows, const Part<P3D_SCALAR>& part, \
                         AttentionScratch& scratch, P3D_SCALAR* result,                       \
                         Compute<P3D_SCALAR>* log_sum) {                                      \
    attend_part<bytes>(rows, part, scratch, result, log_sum);                                 \
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
void set_attention(const AttentionRows<Scalar>& rows, const RowSets& sets, Scalar* result,
                   Compute<Scalar>* log_sum, int threads) {
  for_each_part(
      sets, rows.heads, true, threads,
      [&](int64_t set, int64_t query_begin, int64_t query_end, int64_t head) {
        static thread_local AttentionScratch scratch;
        const int64_t begin = sets.offsets[set];
        const Part<Scalar> part{
            sets.order + begin,   sets.offsets[set + 1] - begin, query_begin, query_end, head,
            next_count(sets, set)};
        attend(rows, part, scratch, result, log_sum);
      });
}

#define P3D_INSTANTIATE(Scalar)                                                      \
  template void set_attention(const AttentionRows<Scalar>&, const RowSets&, Scalar*, \
                              Compute<Scalar>*, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
