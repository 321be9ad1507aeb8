// What both directions of scattered_linear_attention begin with: the sums over the keys of a
// window.
#pragma once

#include <algorithm>

#include "cpu/linear_attention_tiles.h"
#include "cpu/window_work.h"

namespace perception3d {

// Multiply-adds worth a thread.
constexpr int64_t kWorkPerThread = 1 << 18;

// Rows are fetched into the caches so many rows before they are needed.
constexpr int64_t kRowsAhead = 64;

// Calls body(Places) for blocks of at most kBlockRows of the places [begin, end).
template <typename Scalar, typename Body>
void for_each_block_of_rows(const LinearAttention<Scalar>& attention, int64_t head, int64_t begin,
                            int64_t end, const Body& body) {
  const int64_t heads = attention.heads;
  const int64_t last = attention.offsets[attention.num_windows];
  for (int64_t first = begin; first < end; first += kBlockRows) {
    const int64_t piece = head * (end - begin) + first - begin;
    body(Places{attention.order, first, std::min(kBlockRows, end - first), head, heads,
                begin + kRowsAhead + piece / heads, piece % heads, last});
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

// The sums of one head in an array (windows or parts, heads, sums_size).
template <typename Scalar>
WindowSums<Compute<Scalar>> sums_at(const LinearAttention<Scalar>& attention,
                                    Compute<Scalar>* array, int64_t index, int64_t head) {
  using Number = Compute<Scalar>;
  const int64_t width = padded<Number>(attention.key_width);
  Number* matrix = array + (index * attention.heads + head) * sums_size(attention);
  return {matrix, matrix + width * padded<Number>(attention.value_width)};
}

// Adds relu(k) v^T, or v relu(k)^T if `transposed`, and relu(k) of the places [begin, end).
// key and value are scratch blocks.
template <typename Scalar>
void sum_keys(const LinearAttention<Scalar>& attention, int64_t head, int64_t begin, int64_t end,
              bool transposed, Compute<Scalar>* key, Compute<Scalar>* value,
              const WindowSums<Compute<Scalar>>& sums) {
  const int64_t d = attention.key_width;
  const int64_t e = attention.value_width;
  for_each_block_of_rows(attention, head, begin, end, [&](const Places& places) {
    gather_rows(attention.key, places, d, true, key);
    gather_rows(attention.value, places, e, false, value);
    if (transposed) {
      add_outer_products(value, e, key, d, places.count, sums.matrix);
    } else {
      add_outer_products(key, d, value, e, places.count, sums.matrix);
    }
    add_rows(key, d, places.count, sums.vector);
  });
}

// The first window from `window` on, before `last`, with more than one row.
template <typename Scalar>
int64_t end_of_lone_rows(const LinearAttention<Scalar>& attention, int64_t window, int64_t last) {
  while (window < last && attention.offsets[window + 1] - attention.offsets[window] <= 1) ++window;
  return window;
}

template <typename Scalar>
int workers_for(const LinearAttention<Scalar>& attention, int threads) {
  const int64_t rows = attention.offsets[attention.num_windows];
  return worker_count(threads, rows * attention.heads * attention.key_width * attention.value_width,
                      kWorkPerThread);
}

}  // namespace perception3d
