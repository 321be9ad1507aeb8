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

  explicit Scratch(const LinearAttention<Scalar>& attention)
      : narrow(kBlockRows * padded<Number>(attention.key_width)),
        wide(kBlockRows * padded<Number>(attention.value_width)),
        wide_grad(kBlockRows * padded<Number>(attention.value_width)),
        narrow_grad(kBlockRows * padded<Number>(attention.key_width)),
        scale(kBlockRows),
        sums(sums_size(attention)),
        grad_sums(sums_size(attention)),
        transposed(sums_size(attention)) {}

  Pad<Number> narrow;  // block of keys or queries
  Pad<Number> wide;    // block of values or gradients of the output
  Pad<Number> wide_grad;
  Pad<Number> narrow_grad;
  Pad<Number> scale;
  Pad<Number> sums;
  Pad<Number> grad_sums;
  Pad<Number> transposed;
};

// Writes the gradient of the queries of the places [begin, end) and adds to dS and ds.
template <typename Scalar>
void go_back_to_queries(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                        int64_t head, int64_t begin, int64_t end,
                        const WindowSums<Compute<Scalar>>& sums, const Scratch<Scalar>& scratch,
                        const WindowSums<Compute<Scalar>>& grad_sums) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* wide = scratch.wide.get();
  auto* result = scratch.narrow_grad.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.query, places, d, true, query);
    gather_rows(grad.output, places, e, false, wide);
    multiply(wide, e, sums.matrix, d, places.count, result);
    finish_queries(query, sums.vector, d, places.count, attention.epsilon, result, scale,
                   grad_sums.vector);
    scatter_rows(result, nullptr, d, places, grad.query);
    scale_rows(scale, e, places.count, wide);
    add_outer_products(query, d, wide, e, places.count, grad_sums.matrix);
  });
}

// Writes the gradients of the keys and values of the places [begin, end).
template <typename Scalar>
void go_back_to_keys(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                     int64_t head, int64_t begin, int64_t end,
                     const WindowSums<Compute<Scalar>>& grad_sums, const Scratch<Scalar>& scratch) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* key = scratch.narrow.get();
  auto* wide = scratch.wide.get();
  auto* result = scratch.narrow_grad.get();
  auto* transposed = scratch.transposed.get();
  transpose(grad_sums.matrix, d, e, transposed);
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.key, places, d, true, key);
    gather_rows(attention.value, places, e, false, wide);
    multiply(wide, e, transposed, d, places.count, result);
    finish_keys(key, grad_sums.vector, d, places.count, result);
    scatter_rows(result, nullptr, d, places, grad.key);
    multiply(key, d, grad_sums.matrix, e, places.count, wide);
    scatter_rows(wide, nullptr, e, places, grad.value);
  });
}

// Windows of at most one row, whose places are [begin, end).
template <typename Scalar>
void go_back_alone(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                   int64_t head, int64_t begin, int64_t end, const Scratch<Scalar>& scratch) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  auto* query = scratch.narrow.get();
  auto* key = scratch.narrow_grad.get();
  auto* value = scratch.wide.get();
  auto* output = scratch.wide_grad.get();
  auto* scale = scratch.scale.get();
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.query, places, d, true, query);
    gather_rows(attention.key, places, d, true, key);
    gather_rows(attention.value, places, e, false, value);
    gather_rows(grad.output, places, e, false, output);
    finish_alone(query, key, d, value, output, e, places.count, attention.epsilon, scale);
    scatter_rows(query, nullptr, d, places, grad.query);
    scatter_rows(key, nullptr, d, places, grad.key);
    scatter_rows(output, scale, e, places, grad.value);
  });
}

template <typename Scalar>
void go_back_through_windows(const LinearAttention<Scalar>& attention, const Gradient<Scalar>& grad,
                             const WindowRun& run, const Scratch<Scalar>& scratch) {
  const auto sums = sums_at(attention, scratch.sums.get(), 0, 0);
  const auto grad_sums = sums_at(attention, scratch.grad_sums.get(), 0, 0);
  for (int64_t window = run.first; window < run.last;) {
    const int64_t begin = attention.offsets[window];
    const int64_t first_long = end_of_lone_rows(attention, window, run.last);
    if (first_long > window) {
      for (int64_t head = 0; head < attention.heads; ++head) {
        go_back_alone(attention, grad, head, begin, attention.offsets[first_long], scratch);
      }
      window = first_long;
      continue;
    }
    const int64_t end = attention.offsets[++window];
    for (int64_t head = 0; head < attention.heads; ++head) {
      std::fill_n(scratch.sums.get(), sums_size(attention), Compute<Scalar>{0});
      std::fill_n(scratch.grad_sums.get(), sums_size(attention), Compute<Scalar>{0});
      sum_keys(attention, head, begin, end, true, scratch.narrow.get(), scratch.wide.get(), sums);
      go_back_to_queries(attention, grad, head, begin, end, sums, scratch, grad_sums);
      go_back_to_keys(attention, grad, head, begin, end, grad_sums, scratch);
    }
  }
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
  const auto make = [&] { return Scratch<Scalar>(attention); };
  for_each_dynamic_with(workers, work.items(), make, [&](Scratch<Scalar>& scratch, int64_t item) {
    if (item >= work.num_parts()) {
      const WindowRun& run = work.runs[item - work.num_parts()];
      go_back_through_windows(attention, gradient, run, scratch);
      return;
    }
    const WindowPart& part = work.parts[item];
    for (int64_t head = 0; head < attention.heads; ++head) {
      sum_keys(attention, head, part.begin, part.end, true, scratch.narrow.get(),
               scratch.wide.get(), sums_at(attention, of_parts.get(), item, head));
    }
  });
  if (work.num_parts() == 0) return;
  join_parts(work, numbers, of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    for (int64_t head = 0; head < attention.heads; ++head) {
      go_back_to_queries(attention, gradient, head, part.begin, part.end,
                         sums_at(attention, of_parts.get(), part.first_part, head), scratch,
                         sums_at(attention, grads_of_parts.get(), i, head));
    }
  });
  join_parts(work, numbers, grads_of_parts.get());
  for_each_dynamic_with(workers, work.num_parts(), make, [&](Scratch<Scalar>& scratch, int64_t i) {
    const WindowPart& part = work.parts[i];
    for (int64_t head = 0; head < attention.heads; ++head) {
      go_back_to_keys(attention, gradient, head, part.begin, part.end,
                      sums_at(attention, grads_of_parts.get(), part.first_part, head), scratch);
    }
  });
}

#define P3D_INSTANTIATE(Scalar)                                                                 \
  template void scattered_linear_attention_backward(                                            \
      const LinearAttention<Scalar>&, const HeadRows<Scalar>&, const WritableHeadRows<Scalar>&, \
      const WritableHeadRows<Scalar>&, const WritableHeadRows<Scalar>&, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
P3D_INSTANTIATE(BFloat16)
P3D_INSTANTIATE(Float16)
#undef P3D_INSTANTIATE

}  // namespace perception3d
