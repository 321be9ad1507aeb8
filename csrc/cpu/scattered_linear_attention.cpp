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
        sums(sums_size(attention)) {}

  Pad<Number> narrow;  // block of keys or queries
  Pad<Number> keys;    // block of keys beside queries
  Pad<Number> wide;    // block of values or outputs
  Pad<Number> scale;
  Pad<Number> sums;
};

template <typename Scalar>
void write_outputs(const LinearAttention<Scalar>& attention, int64_t head, int64_t begin,
                   int64_t end, const WindowSums<Compute<Scalar>>& sums,
                   const Scratch<Scalar>& scratch, const WritableHeadRows<Scalar>& output) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.query, places, d, true, query);
    normalisers(query, sums.vector, d, places.count, attention.epsilon, scale);
    multiply(query, d, sums.matrix, e, places.count, scratch.wide.get());
    scatter_rows(scratch.wide.get(), scale, e, places, output);
  });
}

// Windows of at most one row, whose places are [begin, end).
template <typename Scalar>
void attend_alone(const LinearAttention<Scalar>& attention, int64_t head, int64_t begin,
                  int64_t end, const Scratch<Scalar>& scratch,
                  const WritableHeadRows<Scalar>& output) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* key = scratch.keys.get();
  auto* value = scratch.wide.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.query, places, d, true, query);
    gather_rows(attention.key, places, d, true, key);
    gather_rows(attention.value, places, e, false, value);
    scales_alone(query, key, d, places.count, attention.epsilon, scale);
    scatter_rows(value, scale, e, places, output);
  });
}

template <typename Scalar>
void attend_whole_windows(const LinearAttention<Scalar>& attention, const WindowRun& run,
                          const Scratch<Scalar>& scratch, const WritableHeadRows<Scalar>& output) {
  auto* numbers = scratch.sums.get();
  auto sums = sums_at(attention, numbers, 0, 0);
  for (int64_t window = run.first; window < run.last;) {
    const int64_t begin = attention.offsets[window];
    const int64_t first_long = end_of_lone_rows(attention, window, run.last);
    if (first_long > window) {
      for (int64_t head = 0; head < attention.heads; ++head) {
        attend_alone(attention, head, begin, attention.offsets[first_long], scratch, output);
      }
      window = first_long;
      continue;
    }
    const int64_t end = attention.offsets[++window];
    for (int64_t head = 0; head < attention.heads; ++head) {
      std::fill_n(numbers, sums_size(attention), Compute<Scalar>{0});
      sum_keys(attention, head, begin, end, false, scratch.narrow.get(), scratch.wide.get(), sums);
      write_outputs(attention, head, begin, end, sums, scratch, output);
    }
  }
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
    for (int64_t head = 0; head < attention.heads; ++head) {
      sum_keys(attention, head, part.begin, part.end, false, scratch.narrow.get(),
               scratch.wide.get(), sums_at(attention, of_parts.get(), item, head));
    }
  });
  if (work.num_parts() == 0) return;
  join_parts(work, numbers, of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    for (int64_t head = 0; head < attention.heads; ++head) {
      write_outputs(attention, head, part.begin, part.end,
                    sums_at(attention, of_parts.get(), part.first_part, head), scratch, output);
    }
  });
}

#define P3D_INSTANTIATE(Scalar)                                            \
  template void scattered_linear_attention(const LinearAttention<Scalar>&, \
                                           const WritableHeadRows<Scalar>&, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace perception3d
