#include <algorithm>

#include "cpu/gemm_tile.h"
#include "cpu/linear.h"
#include "cpu/packed_weight.h"

namespace perception3d {
namespace {

// Rows whose products stay in registers until they are added to the gradient.
constexpr int64_t kDepth = 128;
// The rows are cut into at most so many chunks, of at least so many rows, whatever the number of
// threads; the sums of the chunks are added in order.
constexpr int64_t kMostChunks = 16;
constexpr int64_t kFewestRows = 8 * kDepth;
constexpr int64_t kFlopsPerWorker = 1 << 21;
constexpr int64_t kTasksPerWorker = 4;

// Columns first .. first + count - 1 of `grad`, of rows begin .. end - 1.
template <typename Number>
struct Task {
  RowMatrix<Number> grad, rows;
  int64_t first, count, begin, end;
  Number *sums, *sums_of_grad;  // (count, padded), (count) or null
};

// Where the tiles find kDepth rows of the second matrix: as they lie, or copied panel by panel,
// where they do not fill whole units, or lie so far apart that they push each other out of the
// first-level cache.
template <typename Number>
class Panels {
 public:
  explicit Panels(const RowMatrix<Number>& rows)
      : rows_(rows),
        padded_(units_of<Number>(rows.columns) * kUnit<Number>),
        copied_(padded_ != rows.columns || rows.step >= kFarApart),
        copy_(copied_ ? padded_ * kDepth : 0) {}

  // Columns, filled up to whole units with 0.
  int64_t padded() const { return padded_; }
  int64_t width(int64_t first) const { return std::min(kPanel<Number>, padded_ - first); }

  P3D_INLINE void take(int64_t begin, int64_t depth) {
    first_row_ = rows_.data + begin * rows_.step;
    for (int64_t d = 0; copied_ && d < depth; ++d) {
      const Number* source = first_row_ + d * rows_.step;
      for (int64_t first = 0; first < padded_; first += kPanel<Number>) {
        std::copy_n(source + first, std::min(width(first), rows_.columns - first),
                    copy_.get() + first * kDepth + d * width(first));
      }
    }
  }

  P3D_INLINE void place(int64_t first, Tile<Number>& tile) const {
    tile.panel = copied_ ? copy_.get() + first * kDepth : first_row_ + first;
    tile.stride = copied_ ? width(first) : rows_.step;
  }

 private:
  static constexpr int64_t kFarApart = 4096 / sizeof(Number);

  const RowMatrix<Number>& rows_;
  int64_t padded_;
  bool copied_;
  Pad<Number> copy_;
  const Number* first_row_ = nullptr;
};

// Adds up the columns of the gradient, of `depth` rows.
template <typename Number>
P3D_INLINE void sum_rows(const Task<Number>& task, int64_t begin, int64_t depth) {
  for (int64_t d = 0; d < depth; ++d) {
    const Number* source = task.grad.data + (begin + d) * task.grad.step + task.first;
    for (int64_t k = 0; k < task.count; ++k) task.sums_of_grad[k] += source[k];
  }
}

template <typename Number>
P3D_INLINE void fetch_row(const RowMatrix<Number>& matrix, int64_t row, int64_t first,
                          int64_t count) {
  const Number* source = matrix.data + row * matrix.step + first;
  for (int64_t c = 0; c < count; c += kUnit<Number>) __builtin_prefetch(source + c, 0, 2);
}

// Asks for what comes next: of the kDepth rows from `begin` on, the share of tile number `tile`
// of `tiles`.
template <typename Number>
P3D_INLINE void fetch_ahead(const Task<Number>& task, int64_t begin, int64_t tile, int64_t tiles) {
  const int64_t end = std::min(task.end, begin + (tile + 1) * kDepth / tiles);
  for (int64_t row = begin + tile * kDepth / tiles; row < end; ++row) {
    fetch_row(task.grad, row, task.first, task.count);
    fetch_row(task.rows, row, 0, task.rows.columns);
  }
}

template <typename Number>
P3D_INLINE void sum_products_of(const Task<Number>& task, Panels<Number>& panels) {
  const int64_t padded = panels.padded();
  const int64_t tiles =
      ((padded + kPanel<Number> - 1) / kPanel<Number>)*((task.count + kTileRows - 1) / kTileRows);
  for (int64_t begin = task.begin; begin < task.end; begin += kDepth) {
    const int64_t depth = std::min(kDepth, task.end - begin);
    if (task.sums_of_grad != nullptr) sum_rows(task, begin, depth);
    panels.take(begin, depth);
    Tile<Number> tile;
    tile.depth = depth;
    tile.step = task.grad.step;
    int64_t number = 0;
    for (int64_t first = 0; first < padded; first += kPanel<Number>) {
      const int64_t units = panels.width(first) / kUnit<Number>;
      panels.place(first, tile);
      for (int64_t c = 0; c < task.count; c += kTileRows) {
        const int64_t wanted = std::min(kTileRows, task.count - c);
        fetch_ahead(task, begin + kDepth, number++, tiles);
        for (int64_t r = 0; r < wanted; ++r) {
          tile.rows[r] = task.grad.data + begin * task.grad.step + task.first + c + r;
          tile.sums[r] = task.sums + (c + r) * padded + first;
        }
        multiply_rows(tile, wanted, units, Sums::kContinue);
      }
    }
  }
}

P3D_CLONES void sum_products(const Task<float>& task, Panels<float>& panels) {
  sum_products_of(task, panels);
}
P3D_CLONES void sum_products(const Task<double>& task, Panels<double>& panels) {
  sum_products_of(task, panels);
}

}  // namespace

template <typename Number>
void linear_weight_gradient(const RowMatrix<Number>& grad, const RowMatrix<Number>& rows,
                            Number* grad_weight, Number* grad_bias, int threads) {
  const int64_t count = rows.rows, out = grad.columns, in = rows.columns;
  const int64_t padded = units_of<Number>(in) * kUnit<Number>;
  const int64_t chunk_rows = std::max(kFewestRows, (count + kMostChunks - 1) / kMostChunks);
  const int64_t chunks = std::max<int64_t>(1, (count + chunk_rows - 1) / chunk_rows);
  const Pad<Number> sums(chunks * out * padded), sums_of_grad(chunks * out);

  const int workers = worker_count(threads, count * out * in, kFlopsPerWorker);
  // Cutting the columns of the gradient changes no sum, so it may depend on the number of workers.
  const int64_t strips = (out + kTileRows - 1) / kTileRows;
  const int64_t wanted = workers == 1 ? 1 : (kTasksPerWorker * workers + chunks - 1) / chunks;
  const int64_t parts = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(strips / 4, 1));
  for_each_dynamic(workers, chunks * parts, 1, [&](int64_t number) {
    const int64_t chunk = number / parts, part = number % parts;
    const int64_t first = block_begin(strips, parts, part) * kTileRows;
    const int64_t end = std::min(out, block_begin(strips, parts, part + 1) * kTileRows);
    const Task<Number> task{
        grad,
        rows,
        first,
        end - first,
        chunk * chunk_rows,
        std::min(count, (chunk + 1) * chunk_rows),
        sums.get() + (chunk * out + first) * padded,
        grad_bias == nullptr ? nullptr : sums_of_grad.get() + chunk * out + first};
    Panels<Number> panels(rows);
    sum_products(task, panels);
  });
  for_each_block(worker_count(threads, chunks * out * in, kFlopsPerWorker), out,
                 [&](int, int64_t begin, int64_t end) {
                   for (int64_t o = begin; o < end; ++o) {
                     Number* target = grad_weight + o * in;
                     std::copy_n(sums.get() + o * padded, in, target);
                     for (int64_t chunk = 1; chunk < chunks; ++chunk) {
                       const Number* source = sums.get() + (chunk * out + o) * padded;
                       for (int64_t i = 0; i < in; ++i) target[i] += source[i];
                     }
                   }
                 });
  for (int64_t o = 0; o < out && grad_bias != nullptr; ++o) {
    grad_bias[o] = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      grad_bias[o] += sums_of_grad.get()[chunk * out + o];
  }
}

#define P3D_INSTANTIATE(Number)                                                            \
  template void linear_weight_gradient(const RowMatrix<Number>&, const RowMatrix<Number>&, \
                                       Number*, Number*, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace perception3d
