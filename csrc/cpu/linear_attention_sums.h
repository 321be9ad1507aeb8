// What both directions of scattered_linear_attention begin with: the sums over the keys of a
// window.
#pragma once

#include <algorithm>

#include "cpu/linear_attention_finish.h"
#include "cpu/linear_attention_products.h"
#include "cpu/window_work.h"

namespace perception3d {

// Multiply-adds worth a thread.
constexpr int64_t kWorkPerThread = 1 << 18;

// Calls body(Places) for blocks of at most kBlockRows of the places [begin, end).
template <typename Scalar, typename Body>
void for_each_block_of_rows(const LinearAttention<Scalar>& attention, int64_t begin, int64_t end,
                            const Body& body) {
  for (int64_t first = begin; first < end; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, end - first);
    for (int64_t head = 0; head < attention.heads; ++head) {
      body(Places{attention.order, first, count, head});
    }
  }
}

// Sums over the rows of a window, for one head: a matrix, and a vector along the key's width.
template <typename Number>
struct WindowSums {
  Number* matrix;
  Number* vector;
};

template <typename Scalar>
int64_t sums_size(const LinearAttention<Scalar>& attention) {
  using Number = Compute<Scalar>;
  const int64_t width = padded<Number>(attention.key_width);
  return width * padded<Number>(attention.value_width) + width;
}

// The sums of one head in an array (heads, sums_size).
template <typename Scalar>
WindowSums<Compute<Scalar>> sums_at(const LinearAttention<Scalar>& attention,
                                    Compute<Scalar>* array, int64_t head) {
  using Number = Compute<Scalar>;
  const int64_t width = padded<Number>(attention.key_width);
  Number* matrix = array + head * sums_size(attention);
  return {matrix, matrix + width * padded<Number>(attention.value_width)};
}

// Fetches queries, keys and values of windows that are gone through `passes` times.
template <typename Scalar>
RowFetcher fetch_rows(const LinearAttention<Scalar>& attention, int64_t passes) {
  const int64_t heads = attention.heads;
  RowFetcher fetcher(attention.order, attention.offsets[attention.num_windows], passes * heads);
  fetcher.add(attention.query, heads, attention.key_width);
  fetcher.add(attention.key, heads, attention.key_width);
  fetcher.add(attention.value, heads, attention.value_width);
  return fetcher;
}

// Adds relu(k) v^T, or v relu(k)^T if `transposed`, and relu(k) of the places [begin, end) to the
// sums of all heads.  The pads are scratch blocks.
template <typename Scalar>
void sum_keys(const LinearAttention<Scalar>& attention, int64_t begin, int64_t end, bool transposed,
              Compute<Scalar>* key_pad, Compute<Scalar>* value_pad, Compute<Scalar>* sums,
              RowFetcher& fetcher) {
  using Number = Compute<Scalar>;
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  const auto key = rows_on_pad<const Number>(key_pad, d);
  for_each_block_of_rows(attention, begin, end, [&](const Places& places) {
    const WindowSums<Number> sum = sums_at(attention, sums, places.head);
    gather_rows(attention.key, places, d, true, key_pad);
    const auto value = read_rows(attention.value, places, e, value_pad);
    Fetches fetches = fetcher.during(places.first, places.count);
    if (transposed) {
      add_outer_products(value, e, key, d, places.count, sum.matrix, fetches);
    } else {
      add_outer_products(key, d, value, e, places.count, sum.matrix, fetches);
    }
    fetches.finish();
    add_rows(key_pad, d, places.count, sum.vector);
  });
}

// Calls alone(begin, end) with the places of neighbouring windows of at most one row each, and
// together(begin, end) with those of every other window of a run, in order.
template <typename Alone, typename Together>
void for_each_window(const int64_t* offsets, const WindowRun& run, const Alone& alone,
                     const Together& together) {
  for (int64_t window = run.first; window < run.last;) {
    const int64_t begin = offsets[window];
    const int64_t first = window;
    while (window < run.last && offsets[window + 1] - offsets[window] <= 1) ++window;
    if (window > first) {
      alone(begin, offsets[window]);
    } else {
      together(begin, offsets[++window]);
    }
  }
}

template <typename Scalar>
int workers_for(const LinearAttention<Scalar>& attention, int threads) {
  const int64_t rows = attention.offsets[attention.num_windows];
  return worker_count(threads, rows * attention.heads * attention.key_width * attention.value_width,
                      kWorkPerThread);
}

}  // namespace perception3d
