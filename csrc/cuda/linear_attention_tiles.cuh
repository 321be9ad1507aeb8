// Products of small matrices in shared memory, by warps, and rows between there and global memory.
//
// All operands are rows of float or double in shared memory.  Strides are multiples of 4 with
// stride / 4 odd, so that eight rows, read 16 bytes each, lie in different banks.
#pragma once

#include "common/linear_attention.h"
#include "common/packed.cuh"

namespace perception3d {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__host__ __device__ inline int round_up(int number, int step) {
  return (number + step - 1) / step * step;
}
// Stride of rows with `padded` numbers, a multiple of 16.
__host__ __device__ inline int row_stride(int padded) { return padded + 4; }

// Four neighbouring numbers, in pieces of 16 bytes.
template <typename Number>
struct alignas(16) Four {
  Number number[4];
};
template <typename Number>
__device__ __forceinline__ Four<Number> load_four(const Number* source) {
  return *reinterpret_cast<const Four<Number>*>(source);
}
template <typename Number>
__device__ __forceinline__ void store_four(const Four<Number>& four, Number* target) {
  *reinterpret_cast<Four<Number>*>(target) = four;
}

// The part of a product that a lane holds: kRows rows, a = 0 .. kRows - 1, and of each of them the
// columns 4 (lane % 4) + 16 part + c.  Which rows they are is told below.
template <typename Number_, int kRows, int kColumns>
struct Product {
  using Number = Number_;
  static constexpr int kParts = kColumns / 16;
  Number number[kRows][kParts][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int a = 0; a < kRows; ++a) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int c = 0; c < 4; ++c) number[a][part][c] = 0;
      }
    }
  }

  // Calls body(a, column, four) for the pieces of four neighbouring numbers.
  template <typename Body>
  __device__ __forceinline__ void for_each_piece(int lane, const Body& body) {
#pragma unroll
    for (int a = 0; a < kRows; ++a) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        body(a, lane % 4 * 4 + 16 * part, number[a][part]);
      }
    }
  }
};

// 32 rows x kTile columns; rows lane / 4 + 8 a.
template <typename Number, int kTile>
using RowProduct = Product<Number, 4, kTile>;
__device__ __forceinline__ int product_row(int lane, int a) { return lane / 4 + 8 * a; }

// kTile rows x kTile columns; rows lane / 4 * (kTile / 8) + a.
template <typename Number, int kTile>
using SumProduct = Product<Number, kTile / 8, kTile>;
template <int kTile>
__device__ __forceinline__ int sum_row(int lane, int a) {
  return lane / 4 * (kTile / 8) + a;
}

// product += left (32 rows, inner) right (inner, kTile).  Rows after last_row are not read.
template <int kTile, typename Number>
__device__ __forceinline__ void multiply(const Number* left, int left_stride, int last_row,
                                         int inner, const Number* right, int right_stride, int lane,
                                         RowProduct<Number, kTile>& product) {
  const Number* row[4];
#pragma unroll
  for (int a = 0; a < 4; ++a) row[a] = left + min(product_row(lane, a), last_row) * left_stride;
  const Number* column = right + lane % 4 * 4;
#pragma unroll 2
  for (int i = 0; i < inner; i += 4) {
    Four<Number> x[4];
#pragma unroll
    for (int a = 0; a < 4; ++a) x[a] = load_four(row[a] + i);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
      for (int part = 0; part < kTile / 16; ++part) {
        const Four<Number> y = load_four(column + (i + u) * right_stride + 16 * part);
#pragma unroll
        for (int a = 0; a < 4; ++a) {
#pragma unroll
          for (int c = 0; c < 4; ++c) product.number[a][part][c] += x[a].number[u] * y.number[c];
        }
      }
    }
  }
}

// product += left (32 rows, inner) right (kTile rows, inner)^T.  Rows after the last are not read.
template <int kTile, typename Number>
__device__ __forceinline__ void multiply_transposed(const Number* left, int left_stride,
                                                    int last_row, int inner, const Number* right,
                                                    int right_stride, int last_right, int lane,
                                                    RowProduct<Number, kTile>& product) {
  const Number* row[4];
#pragma unroll
  for (int a = 0; a < 4; ++a) row[a] = left + min(product_row(lane, a), last_row) * left_stride;
  const int column = lane % 4 * 4;
  for (int i = 0; i < inner; i += 4) {
    Four<Number> x[4];
#pragma unroll
    for (int a = 0; a < 4; ++a) x[a] = load_four(row[a] + i);
#pragma unroll
    for (int part = 0; part < kTile / 16; ++part) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int other = min(column + c + 16 * part, last_right);
        const Four<Number> y = load_four(right + other * right_stride + i);
#pragma unroll
        for (int a = 0; a < 4; ++a) {
#pragma unroll
          for (int u = 0; u < 4; ++u) {
            product.number[a][part][c] += x[a].number[u] * y.number[u];
          }
        }
      }
    }
  }
}

// product += left (rows, kTile)^T right (rows, kTile).
template <int kTile, typename Number>
__device__ __forceinline__ void add_outer_products(const Number* left, int left_stride,
                                                   const Number* right, int right_stride, int rows,
                                                   int lane, SumProduct<Number, kTile>& product) {
  constexpr int kRows = kTile / 8;
  const Number* first = left + sum_row<kTile>(lane, 0);
  const Number* second = right + lane % 4 * 4;
#pragma unroll 2
  for (int r = 0; r < rows; ++r) {
    Number x[kRows];
#pragma unroll
    for (int a = 0; a < kRows; ++a) x[a] = first[r * left_stride + a];
#pragma unroll
    for (int part = 0; part < kTile / 16; ++part) {
      const Four<Number> y = load_four(second + r * right_stride + 16 * part);
#pragma unroll
      for (int a = 0; a < kRows; ++a) {
#pragma unroll
        for (int c = 0; c < 4; ++c) product.number[a][part][c] += x[a] * y.number[c];
      }
    }
  }
}

template <typename Number>
__device__ __forceinline__ Number dot(const Number* a, const Number* b, int padded) {
  Number total = 0;
  for (int i = 0; i < padded; i += 4) {
    const Four<Number> x = load_four(a + i), y = load_four(b + i);
#pragma unroll
    for (int c = 0; c < 4; ++c) total += x.number[c] * y.number[c];
  }
  return total;
}

// Rows of one head in global memory.
template <typename Scalar>
struct HeadSource {
  HeadRows<Scalar> rows;
  int width;
  bool packed;  // pieces of 16 bytes can be read
};

template <typename Scalar>
struct HeadTarget {
  WritableHeadRows<Scalar> rows;
  int width;
  bool packed;  // pieces of 4 numbers can be written
};

// Row of a place.
__device__ __forceinline__ int64_t row_of_place(const int64_t* order, int64_t num_rows,
                                                int64_t place) {
  if (order == nullptr) return place;
  const int64_t row = order[place];
  check_index(row, num_rows, "scattered_linear_attention: order");
  return row;
}

template <typename Number>
__device__ __forceinline__ Number positive_part(Number number) {
  return number <= 0 ? Number{0} : number;  // NaN stays NaN
}

// Copies `count` places from `first` on to shared rows, `padded` wide and zero beyond the width,
// and `zeros` more rows of zeros.  kRelu: negative numbers as zeros.
template <bool kRelu, typename Scalar>
__device__ __forceinline__ void gather_rows(const HeadSource<Scalar>& source, int64_t head,
                                            const int64_t* order, int64_t num_rows, int64_t first,
                                            int count, int zeros, int padded,
                                            Compute<Scalar>* target, int thread, int threads) {
  using Number = Compute<Scalar>;
  constexpr int kMost = kPackedWidth<Scalar>;
  constexpr int kStep = kPackedWidth<Number>;
  const int stride = row_stride(padded);
  const int piece = source.packed ? kMost : 1;
  const int pieces = padded / piece;
  const Scalar* base = source.rows.numbers + head * source.rows.head_stride;
#pragma unroll 4
  for (int i = thread; i < (count + zeros) * pieces; i += threads) {
    const int local = i / pieces, column = (i - local * pieces) * piece;
    Number* out = target + local * stride + column;
    Packed<Scalar, kMost> numbers{};
    if (local < count && column < source.width) {
      const Scalar* in =
          base + row_of_place(order, num_rows, first + local) * source.rows.row_stride + column;
      if (source.packed) {
        numbers = load_packed<kMost>(in);
      } else {
        numbers.number[0] = *in;
      }
    }
    if (!source.packed) {
      out[0] = kRelu ? positive_part(load(numbers.number[0])) : load(numbers.number[0]);
      continue;
    }
#pragma unroll
    for (int c = 0; c < kMost; c += kStep) {
      Packed<Number, kStep> few;
#pragma unroll
      for (int u = 0; u < kStep; ++u) {
        const Number number = load(numbers.number[c + u]);
        few.number[u] = kRelu ? positive_part(number) : number;
      }
      store_packed(few, out + c);
    }
  }
}

// Writes four neighbouring numbers of a row, as far as the row has them.
template <typename Scalar>
__device__ __forceinline__ void scatter_four(const Compute<Scalar>* four,
                                             const HeadTarget<Scalar>& target, int64_t head,
                                             int64_t row, int column) {
  Scalar* out =
      target.rows.numbers + row * target.rows.row_stride + head * target.rows.head_stride + column;
  if (target.packed && column + 4 <= target.width) {
    constexpr int kStep = kPackedWidth<Scalar> < 4 ? kPackedWidth<Scalar> : 4;
#pragma unroll
    for (int first = 0; first < 4; first += kStep) {
      Packed<Scalar, kStep> numbers;
#pragma unroll
      for (int c = 0; c < kStep; ++c) store(four[first + c], numbers.number[c]);
      store_packed(numbers, out + first);
    }
    return;
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (column + c < target.width) store(four[c], out[c]);
  }
}

}  // namespace cuda
}  // namespace perception3d
