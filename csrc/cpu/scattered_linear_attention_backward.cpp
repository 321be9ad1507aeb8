#include "common/parallel.h"
#include "cpu/linear_attention_sums.h"
#include "cpu/scattered_linear_attention.h"

// With S = sum k v^T, s = sum k over a window (k, q after relu), r = 1 / (q . s + epsilon) and the
// gradient g of y = r S^T q:
//   dq = r (S g - r (q . S g) s),    dS = sum q (r g)^T,    ds = sum -r^2 (q . S g) q,
//   dk = dS v + ds,                  dv = dS^T k.
// S is needed transposed only, dS in both forms.
namespace perception3d {
namespace {

template <typename Scalar>
struct Gradient {
  HeadRows<Scalar> output;
  WritableHeadRows<Scalar> query;
  WritableHeadRows<Scalar> key;
  WritableHeadRows<Scalar> value;
};

// Memory of one worker.
template <typename Scalar>
struct Scratch {
  using Number = Compute<Scalar>;

  Scratch(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad)
      : narrow(kBlockRows * padded<Number>(attention.key_width)),
        wide(kBlockRows * padded<Number>(attention.value_width)),
        wide_grad(kBlockRows * padded<Number>(attention.value_width)),
        narrow_grad(kBlockRows * padded<Number>(attention.key_width)),
        scale(kBlockRows),
        sums(attention.heads * sums_size(attention)),
        grad_sums(attention.heads * sums_size(attention)),
        transposed(attention.heads * sums_size(attention)),
        fetcher(fetch_rows(attention, 3)) {
    fetcher.add(grad.output, attention.heads, attention.value_width);
    fetcher.add(grad.query, attention.heads, attention.key_width);
    fetcher.add(grad.key, attention.heads, attention.key_width);
    fetcher.add(grad.value, attention.heads, attention.value_width);
  }

  Pad<Number> narrow;  // block of keys or queries
  Pad<Number> wide;    // block of values or gradients of the output
  Pad<Number> wide_grad;
  Pad<Number> narrow_grad;
  Pad<Number> scale;
  Pad<Number> sums;  // of all heads, as the next two
  Pad<Number> grad_sums;
  Pad<Number> transposed;
  RowFetcher fetcher;
};

// Writes the gradient of the queries of the places [begin, end) and adds to dS and ds.  Both sums
// are those of all heads.
template <typename Scalar>
void go_back_to_queries(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                        int64_t begin, int64_t end, Compute<Scalar>* sums, Scratch<Scalar>& scratch,
                        Compute<Scalar>* grad_sums) {
  using Number = Compute<Scalar>;
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* result = scratch.narrow_grad.get();
  auto* scale = scratch.scale.get();
  const auto on_pad = rows_on_pad(result, d);
  const auto scaled = rows_on_pad(scratch.wide_grad.get(), e);
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    const int64_t count = places.count;
    const WindowSums<Number> sum = sums_at(attention, sums, places.head);
    const WindowSums<Number> grad_sum = sums_at(attention, grad_sums, places.head);
    gather_rows(attention.query, places, d, true, query);
    const auto output = read_rows(grad.output, places, e, scratch.wide.get());
    Fetches fetches = scratch.fetcher.during(places.first, count);
    multiply(output, e, sum.matrix, d, count, nullptr, on_pad, fetches);
    write_rows(grad.query, places, d, result, [&](const BlockRows<Number>& target) {
      finish_queries(query, sum.vector, d, count, attention.epsilon, result, target, scale,
                     grad_sum.vector);
    });
    scale_rows(output, scale, e, count, scaled);
    add_outer_products(rows_on_pad<const Number>(query, d), d, read_only(scaled), e, count,
                       grad_sum.matrix, fetches);
    fetches.finish();
  });
}

// Writes the gradients of the keys and values of the places [begin, end).
template <typename Scalar>
void go_back_to_keys(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                     int64_t begin, int64_t end, Compute<Scalar>* grad_sums,
                     Scratch<Scalar>& scratch) {
  using Number = Compute<Scalar>;
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* key = scratch.narrow.get();
  auto* result = scratch.narrow_grad.get();
  for (int64_t head = 0; head < attention.heads; ++head) {
    transpose(sums_at(attention, grad_sums, head).matrix, d, e,
              sums_at(attention, scratch.transposed.get(), head).matrix);
  }
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    const int64_t count = places.count;
    const WindowSums<Number> grad_sum = sums_at(attention, grad_sums, places.head);
    const Number* transposed = sums_at(attention, scratch.transposed.get(), places.head).matrix;
    gather_rows(attention.key, places, d, true, key);
    const auto value = read_rows(attention.value, places, e, scratch.wide.get());
    Fetches fetches = scratch.fetcher.during(places.first, count);
    multiply(value, e, transposed, d, count, nullptr, rows_on_pad(result, d), fetches);
    write_rows(grad.key, places, d, result, [&](const BlockRows<Number>& target) {
      finish_keys(key, grad_sum.vector, d, count, result, target);
    });
    write_rows(grad.value, places, e, scratch.wide_grad.get(),
               [&](const BlockRows<Number>& target) {
                 multiply(rows_on_pad<const Number>(key, d), d, grad_sum.matrix, e, count, nullptr,
                          target, fetches);
               });
    fetches.finish();
  });
}

// Windows of at most one row, whose places are [begin, end).
template <typename Scalar>
void go_back_alone(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                   int64_t begin, int64_t end, Scratch<Scalar>& scratch) {
  using Number = Compute<Scalar>;
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* key = scratch.narrow_grad.get();
  auto* value = scratch.wide.get();
  auto* output = scratch.wide_grad.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    scratch.fetcher.during(places.first, 3 * places.count).finish();
    gather_rows(attention.query, places, d, true, query);
    gather_rows(attention.key, places, d, true, key);
    gather_rows(attention.value, places, e, false, value);
    gather_rows(grad.output, places, e, false, output);
    finish_alone(query, key, d, value, output, e, places.count, attention.epsilon, scale);
    scatter_rows(query, d, places, grad.query);
    scatter_rows(key, d, places, grad.key);
    write_rows(grad.value, places, e, output, [&](const BlockRows<Number>& target) {
      scale_rows(rows_on_pad<const Number>(output, e), scale, e, places.count, target);
    });
  });
}

template <typename Scalar>
void go_back_through_windows(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                             const WindowRun& run, Scratch<Scalar>& scratch) {
  auto* sums = scratch.sums.get();
  auto* grad_sums = scratch.grad_sums.get();
  const int64_t numbers = attention.heads * sums_size(attention);
  const auto alone = [&](int64_t begin, int64_t end) {
    go_back_alone(attention, grad, begin, end, scratch);
  };
  for_each_window(attention.offsets, run, alone, [&](int64_t begin, int64_t end) {
    std::fill_n(sums, numbers, Compute<Scalar>{0});
    std::fill_n(grad_sums, numbers, Compute<Scalar>{0});
    sum_keys(attention, begin, end, true, scratch.narrow.get(), scratch.wide.get(), sums,
             scratch.fetcher);
    go_back_to_queries(attention, grad, begin, end, sums, scratch, grad_sums);
    go_back_to_keys(attention, grad, begin, end, grad_sums, scratch);
  });
}

}  // namespace

template <typename Scalar>
void scattered_linear_attention_backward(const LinearAttention<Scalar>& attention,
                                         const HeadRows<Scalar>& grad,
                                         const WritableHeadRows<Scalar>& grad_query,
                                         const WritableHeadRows<Scalar>& grad_key,
                                         const WritableHeadRows<Scalar>& grad_value, int threads) {
  using Number = Compute<Scalar>;
  const Gradient<Scalar> gradient{grad, grad_query, grad_key, grad_value};
  const WindowWork work = divide_windows(attention.offsets, attention.num_windows, threads);
  const int workers = workers_for(attention, threads);
  const int64_t numbers = attention.heads * sums_size(attention);
  const Pad<Number> of_parts(work.num_parts() * numbers);
  const Pad<Number> grads_of_parts(work.num_parts() * numbers);
  const auto make = [&] { return Scratch<Scalar>(attention, gradient); };
  for_each_dynamic_with(workers, work.items(), make, [&](Scratch<Scalar>& scratch, int64_t item) {
    if (item >= work.num_parts()) {
      const WindowRun& run = work.runs[item - work.num_parts()];
      go_back_through_windows(attention, gradient, run, scratch);
      return;
    }
    const WindowPart& part = work.parts[item];
    sum_keys(attention, part.begin, part.end, true, scratch.narrow.get(), scratch.wide.get(),
             of_parts.get() + item * numbers, scratch.fetcher);
  });
  if (work.num_parts() == 0) return;
  join_parts(work, numbers, of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    go_back_to_queries(attention, gradient, part.begin, part.end,
                       of_parts.get() + part.first_part * numbers, scratch,
                       grads_of_parts.get() + i * numbers);
  });
  join_parts(work, numbers, grads_of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    go_back_to_keys(attention, gradient, part.begin, part.end,
                    grads_of_parts.get() + part.first_part * numbers, scratch);
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                 \
  template void scattered_linear_attention_backward(                                            \
      const LinearAttention<Scalar>&, const HeadRows<Scalar>&, const WritableHeadRows<Scalar>&, \
      const WritableHeadRows<Scalar>&, const WritableHeadRows<Scalar>&, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
