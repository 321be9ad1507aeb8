#include "cpu/scattered_linear_attention.h"

#include "common/parallel.h"
#include "cpu/linear_attention_sums.h"

namespace perception3d {
namespace {

// Memory of one worker.
template <typename Scalar>
struct Scratch {
  using Number = Compute<Scalar>;

  explicit Scratch(const LinearAttention<Scalar>& attention)
      : narrow(kBlockRows * padded<Number>(attention.key_width)),
        keys(kBlockRows * padded<Number>(attention.key_width)),
        wide(kBlockRows * padded<Number>(attention.value_width)),
        scale(kBlockRows),
        sums(attention.heads * sums_size(attention)),
        fetcher(fetch_rows(attention, 2)) {}

  Pad<Number> narrow;  // block of keys or queries
  Pad<Number> keys;    // block of keys beside queries
  Pad<Number> wide;    // block of values or outputs
  Pad<Number> scale;
  Pad<Number> sums;  // of all heads
  RowFetcher fetcher;
};

// `sums` are those of all heads.
template <typename Scalar>
void write_outputs(const LinearAttention<Scalar>& attention, int64_t begin, int64_t end,
                   Compute<Scalar>* sums, Scratch<Scalar>& scratch,
                   const WritableHeadRows<Scalar>& output) {
  using Number = Compute<Scalar>;
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    const WindowSums<Number> sum = sums_at(attention, sums, places.head);
    gather_rows(attention.query, places, d, true, query);
    normalisers(query, sum.vector, d, places.count, attention.epsilon, scale);
    Fetches fetches = scratch.fetcher.during(places.first, places.count);
    write_rows(output, places, e, scratch.wide.get(), [&](const BlockRows<Number>& result) {
      multiply(rows_on_pad<const Number>(query, d), d, sum.matrix, e, places.count, scale, result,
               fetches);
    });
    fetches.finish();
  });
}

// Windows of at most one row, whose places are [begin, end).
template <typename Scalar>
void attend_alone(const LinearAttention<Scalar>& attention, int64_t begin, int64_t end,
                  Scratch<Scalar>& scratch, const WritableHeadRows<Scalar>& output) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* key = scratch.keys.get();
  auto* value = scratch.wide.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    scratch.fetcher.during(places.first, 2 * places.count).finish();
    gather_rows(attention.query, places, d, true, query);
    gather_rows(attention.key, places, d, true, key);
    const auto rows = read_rows(attention.value, places, e, value);
    scales_alone(query, key, d, places.count, attention.epsilon, scale);
    write_rows(output, places, e, value, [&](const BlockRows<Compute<Scalar>>& result) {
      scale_rows(rows, scale, e, places.count, result);
    });
  });
}

template <typename Scalar>
void attend_whole_windows(const LinearAttention<Scalar>& attention, const WindowRun& run,
                          Scratch<Scalar>& scratch, const WritableHeadRows<Scalar>& output) {
  auto* sums = scratch.sums.get();
  const auto alone = [&](int64_t begin, int64_t end) {
    attend_alone(attention, begin, end, scratch, output);
  };
  for_each_window(attention.offsets, run, alone, [&](int64_t begin, int64_t end) {
    std::fill_n(sums, attention.heads * sums_size(attention), Compute<Scalar>{0});
    sum_keys(attention, begin, end, false, scratch.narrow.get(), scratch.wide.get(), sums,
             scratch.fetcher);
    write_outputs(attention, begin, end, sums, scratch, output);
  });
}

}  // namespace

template <typename Scalar>
void scattered_linear_attention(const LinearAttention<Scalar>& attention,
                                const WritableHeadRows<Scalar>& output, int threads) {
  using Number = Compute<Scalar>;
  const WindowWork work = divide_windows(attention.offsets, attention.num_windows, threads);
  const int workers = workers_for(attention, threads);
  const int64_t numbers = attention.heads * sums_size(attention);
  const Pad<Number> of_parts(work.num_parts() * numbers);
  const auto make = [&] { return Scratch<Scalar>(attention); };
  for_each_dynamic_with(workers, work.items(), make, [&](Scratch<Scalar>& scratch, int64_t item) {
    if (item >= work.num_parts()) {
      attend_whole_windows(attention, work.runs[item - work.num_parts()], scratch, output);
      return;
    }
    const WindowPart& part = work.parts[item];
    sum_keys(attention, part.begin, part.end, false, scratch.narrow.get(), scratch.wide.get(),
             of_parts.get() + item * numbers, scratch.fetcher);
  });
  if (work.num_parts() == 0) return;
  join_parts(work, numbers, of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    write_outputs(attention, part.begin, part.end, of_parts.get() + part.first_part * numbers,
                  scratch, output);
  });
}

#define P3D_INSTANTIATE(Scalar)                                            \
  template void scattered_linear_attention(const LinearAttention<Scalar>&, \
                                           const WritableHeadRows<Scalar>&, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
