// Products of small matrices and rows between memory and the scratch pad: what the passes of
// scattered_linear_attention are made of.
//
// A block of rows on the scratch pad has `width` numbers a row and a stride of padded(width); what
// lies beyond `width` is zero.  A matrix (m, n) has padded(m) rows with the stride padded(n).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "common/linear_attention.h"
#include "cpu/vectors.h"

namespace perception3d {

// Rows on the scratch pad at a time.  Products of that many rows are summed on their own before
// they are added to what came before, which also keeps rounding errors of long windows small.
constexpr int64_t kBlockRows = 64;
constexpr int64_t kAlignment = 64;

template <typename Number>
constexpr int kLanes = kAlignment / static_cast<int>(sizeof(Number));
template <typename Number>
using Lanes = Numbers<Number, kLanes<Number>>;

template <typename Number>
int64_t padded(int64_t width) {
  return (width + kLanes<Number> - 1) / kLanes<Number> * kLanes<Number>;
}

// Zeroed numbers that start on a cache line.
template <typename Number>
class Pad {
 public:
  explicit Pad(int64_t count);
  Number* get() const { return numbers_.get(); }

 private:
  struct Free {
    void operator()(Number* numbers) const { std::free(numbers); }
  };
  std::unique_ptr<Number[], Free> numbers_;
};

// Which rows a block holds, and what to fetch into the caches meanwhile.  Heads are worked off one
// after the other, but memory is fast only along whole rows: with the i-th row of a block the
// ahead + i-th piece is fetched, counting all heads of a row, then the next row.
struct Places {
  const int64_t* order;  // null: places are rows
  int64_t first;
  int64_t count;
  int64_t head;
  int64_t heads;
  int64_t ahead_place;
  int64_t ahead_head;
  int64_t last;  // one past the last place of all
};

// gather_rows: block = rows of one head, negative numbers as zeros if `relu`.
// scatter_rows: rows of one head = scale[i] * block[i], or block if scale is null.
#define P3D_DECLARE(Scalar)                                                                      \
  void gather_rows(const HeadRows<Scalar>& rows, const Places& places, int64_t width, bool relu, \
                   Compute<Scalar>* block);                                                      \
  void scatter_rows(const Compute<Scalar>* block, const Compute<Scalar>* scale, int64_t width,   \
                    const Places& places, const WritableHeadRows<Scalar>& rows);
P3D_DECLARE(float)
P3D_DECLARE(double)
P3D_DECLARE(BFloat16)
P3D_DECLARE(Float16)
#undef P3D_DECLARE

// Number is float or double from here on.

// matrix (m, n) += left^T right, of blocks left (rows, m) and right (rows, n).
void add_outer_products(const float* left, int64_t m, const float* right, int64_t n, int64_t rows,
                        float* matrix);
void add_outer_products(const double* left, int64_t m, const double* right, int64_t n, int64_t rows,
                        double* matrix);

// result (rows, n) = left (rows, m) matrix (m, n).
void multiply(const float* left, int64_t m, const float* matrix, int64_t n, int64_t rows,
              float* result);
void multiply(const double* left, int64_t m, const double* matrix, int64_t n, int64_t rows,
              double* result);

// transposed (n, m) = matrix (m, n)^T.
void transpose(const float* matrix, int64_t m, int64_t n, float* transposed);
void transpose(const double* matrix, int64_t m, int64_t n, double* transposed);

// sum (width) += rows of a block.
void add_rows(const float* block, int64_t width, int64_t rows, float* sum);
void add_rows(const double* block, int64_t width, int64_t rows, double* sum);

// scale[i] = 1 / (block[i] . sum + epsilon).
void normalisers(const float* block, const float* sum, int64_t width, int64_t rows, float epsilon,
                 float* scale);
void normalisers(const double* block, const double* sum, int64_t width, int64_t rows,
                 double epsilon, double* scale);

// Turns w = S g of a block of rows into the gradient of the query, where the query is positive:
//   r (w - r (q . w) s),  r = 1 / (q . s + epsilon).
// scale[i] = r; grad_sum += -r^2 (q . w) q, the gradient of s.
void finish_queries(const float* query, const float* sum, int64_t width, int64_t rows,
                    float epsilon, float* w, float* scale, float* grad_sum);
void finish_queries(const double* query, const double* sum, int64_t width, int64_t rows,
                    double epsilon, double* w, double* scale, double* grad_sum);

// block[i] *= scale[i].
void scale_rows(const float* scale, int64_t width, int64_t rows, float* block);
void scale_rows(const double* scale, int64_t width, int64_t rows, double* block);

// grad = grad + grad_sum where key is positive, else 0.
void finish_keys(const float* key, const float* grad_sum, int64_t width, int64_t rows, float* grad);
void finish_keys(const double* key, const double* grad_sum, int64_t width, int64_t rows,
                 double* grad);

// Rows that are alone in their window, where the sums are products of the row's own key and value
// and nearly everything cancels out of the gradients: with z = q . k and r = 1 / (z + epsilon)
//   y = z r v,  dq = epsilon r^2 (v . g) k,  dk = epsilon r^2 (v . g) q,  dv = z r g.
// scale[i] = z r.
void scales_alone(const float* query, const float* key, int64_t width, int64_t rows, float epsilon,
                  float* scale);
void scales_alone(const double* query, const double* key, int64_t width, int64_t rows,
                  double epsilon, double* scale);
// The same, and dq and dk (0 where query or key is not positive) in the place of query and key.
void finish_alone(float* query, float* key, int64_t width, const float* value, const float* grad,
                  int64_t value_width, int64_t rows, float epsilon, float* scale);
void finish_alone(double* query, double* key, int64_t width, const double* value,
                  const double* grad, int64_t value_width, int64_t rows, double epsilon,
                  double* scale);

}  // namespace perception3d
