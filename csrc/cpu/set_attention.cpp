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

// Memory of one part.
template <typename Number>
struct PartScratch {
  const Number **key, **value;  // the rows of the set
  // Room for one vector of queries: (width, kCount) of each, and a score per key.
  Number *query, *total, *scores;
};

// Running softmax of one vector of queries over `count` keys.  query: (width, kCount), scaled so
// that scores are powers of 2; scores: room for kKeysAtOnce.  Fills total (width, kCount), and
// returns the sum and the largest score.
template <int kBytes, typename Number, typename Vec>
P3D_INLINE void attend_lanes(const Vec* query, const Number* const* key, const Number* const* value,
                             int64_t count, int64_t width, Vec* scores, Vec* total, Vec& sum,
                             Vec& largest) {
  largest = Vec{} - std::numeric_limits<Number>::infinity();
  sum = Vec{};
  for (int64_t d = 0; d < width; ++d) total[d] = Vec{};
  for (int64_t begin = 0; begin < count; begin += kKeysAtOnce) {
    const int64_t keys = std::min(kKeysAtOnce, count - begin);
    dot_all_rows(key + begin, keys, query, width, scores);
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
    add_all_rows(value + begin, keys, scores, width, total);
  }
}

// Up to kCount queries from number `begin` of the set on.
template <int kBytes, typename Scalar>
P3D_INLINE void attend_queries(const AttentionRows<Scalar>& rows, const Part<Scalar>& part,
                               const PartScratch<Compute<Scalar>>& scratch, int64_t begin,
                               int64_t queries, Scalar* result, Compute<Scalar>* log_sum) {
  using Number = Compute<Scalar>;
  using Vec = typename LaneTypes<Number, kBytes>::Vec;
  constexpr int64_t lanes = LaneTypes<Number, kBytes>::kCount;
  const int64_t width = rows.width;
  Vec* query = reinterpret_cast<Vec*>(scratch.query);
  Vec* total = reinterpret_cast<Vec*>(scratch.total);
  // Lanes without a query repeat the last one.
  const Scalar* source[lanes];
  Scalar* target[lanes];
  for (int64_t i = 0; i < lanes; ++i) {
    const int64_t row = part.order[begin + std::min(i, queries - 1)];
    source[i] = rows.query.at(row, part.head);
    target[i] = result + (row * rows.heads + part.head) * width;
    prefetch_lines<true>(target[i], target[i] + width);
  }
  // Base 2: exp(x) = 2^(x log2 e).
  const Number scale = Number(M_LOG2E) / std::sqrt(static_cast<Number>(width));
  lanes_from_rows<Number, kBytes>(source, width, scale, query);
  Vec sum, largest;
  attend_lanes<kBytes, Number>(query, scratch.key, scratch.value, part.count, width,
                               reinterpret_cast<Vec*>(scratch.scores), total, sum, largest);
  const Vec share = Number{1} / sum;
  rows_from_lanes<Number, kBytes>(total, width, share, target);
  if (log_sum == nullptr) return;
  for (int64_t i = 0; i < queries; ++i) {
    log_sum[part.order[begin + i] * rows.heads + part.head] = largest[i] + std::log2(sum[i]);
  }
}

template <int kBytes, typename Scalar>
P3D_INLINE void attend_part(const AttentionRows<Scalar>& rows, const Part<Scalar>& part,
                            AttentionScratch& scratch, Scalar* result, Compute<Scalar>* log_sum) {
  using Number = Compute<Scalar>;
  constexpr int64_t lanes = LaneTypes<Number, kBytes>::kCount;
  const int64_t width = rows.width, keys = std::min(kKeysAtOnce, part.count);
  scratch.reserve(sizeof(Number) * (2 * part.count * width + lanes * (2 * width + keys)) +
                      2 * part.count * sizeof(Number*),
                  7);
  Number* key = scratch.take<Number>(part.count * width);
  Number* value = scratch.take<Number>(part.count * width);
  const PartScratch<Number> memory{
      scratch.take<const Number*>(part.count), scratch.take<const Number*>(part.count),
      scratch.take<Number>(lanes * width), scratch.take<Number>(lanes * width),
      scratch.take<Number>(lanes * keys)};
  const int64_t* next = part.order + part.count;
  list_rows(rows.key, part.order, part.count, part.head, width, key, memory.key);
  list_rows(rows.value, part.order, part.count, part.head, width, value, memory.value);
  // What the next set needs is fetched in three pieces, with work between them: a burst of fetches
  // waits for itself.
  prefetch_rows(rows.key, next, part.next_count, part.head, width);
  for (int64_t begin = part.query_begin; begin < part.query_end; begin += lanes) {
    const int64_t queries = std::min(lanes, part.query_end - begin);
    if (queries > lanes / 2) {
      attend_queries<kBytes>(rows, part, memory, begin, queries, result, log_sum);
    } else {
      constexpr int kFewBytes = kBytes > 16 ? kBytes / 2 : kBytes;
      attend_queries<kFewBytes>(rows, part, memory, begin, queries, result, log_sum);
    }
    if (begin == part.query_begin) {
      prefetch_rows(rows.value, next, part.next_count, part.head, width);
    }
  }
  prefetch_rows(rows.query, next, part.next_count, part.head, width);
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
