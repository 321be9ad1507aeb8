// Blocks of rows: in memory, where they can be read and written as they are, or on the scratch pad.
//
// A block on the scratch pad has `width` numbers a row and a stride of padded(width); what lies
// beyond `width` is zero.  A matrix (m, n) has padded(m) rows with the stride padded(n).
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/linear_attention.h"
#include "cpu/pad.h"

namespace perception3d {

// Rows of a block at most.  Products of that many rows are summed on their own before they are
// added to what came before, which also keeps rounding errors of long windows small.
constexpr int64_t kBlockRows = 64;

// The rows of one head that a block holds.
struct Places {
  const int64_t* order;  // null: places are rows
  int64_t first;
  int64_t count;
  int64_t head;
};

// Row i of a block begins at first + index[i] * stride.
template <typename Number>
struct BlockRows {
  Number* first;
  int64_t stride;
  const int64_t* index;

  P3D_INLINE Number* row(int64_t i) const { return first + index[i] * stride; }
};

// 0, 1, .. kBlockRows - 1.
extern const int64_t* const kInTurn;

template <typename Number>
BlockRows<Number> rows_on_pad(Number* pad, int64_t width) {
  return {pad, padded<Number>(width), kInTurn};
}

template <typename Number>
BlockRows<const Number> read_only(const BlockRows<Number>& rows) {
  return {rows.first, rows.stride, rows.index};
}

// Whether kernels can do without a copy: of numbers that are computed as they are stored, in whole
// vectors.
template <typename Scalar>
bool readable_in_place(int64_t width) {
  return std::is_same_v<Scalar, Compute<Scalar>> && width % kLanesOf<Compute<Scalar>> == 0;
}

// The places of a block in memory, of rows of Scalar, which is float or double.
template <typename Rows>
auto rows_in_place(const Rows& rows, const Places& places) {
  auto* numbers = rows.numbers + places.head * rows.head_stride;
  using Number = std::remove_pointer_t<decltype(numbers)>;
  if (places.order != nullptr) {
    return BlockRows<Number>{numbers, rows.row_stride, places.order + places.first};
  }
  return BlockRows<Number>{numbers + places.first * rows.row_stride, rows.row_stride, kInTurn};
}

// gather_rows: block = rows of one head, negative numbers as zeros if `relu`.
// scatter_rows: rows of one head = block.
#define P3D_DECLARE(Scalar)                                                                      \
  void gather_rows(const HeadRows<Scalar>& rows, const Places& places, int64_t width, bool relu, \
                   Compute<Scalar>* block);                                                      \
  void scatter_rows(const Compute<Scalar>* block, int64_t width, const Places& places,           \
                    const WritableHeadRows<Scalar>& rows);
P3D_FOR_EACH_STORAGE(P3D_DECLARE)
#undef P3D_DECLARE

// Rows to read: in place, or copied to `pad`.
template <typename Scalar>
BlockRows<const Compute<Scalar>> read_rows(const HeadRows<Scalar>& rows, const Places& places,
                                           int64_t width, Compute<Scalar>* pad) {
  if constexpr (std::is_same_v<Scalar, Compute<Scalar>>) {
    if (readable_in_place<Scalar>(width)) return rows_in_place(rows, places);
  }
  gather_rows(rows, places, width, false, pad);
  return rows_on_pad<const Compute<Scalar>>(pad, width);
}

// Calls write(BlockRows) to write rows: in place, or to `pad`, from where they are copied.
template <typename Scalar, typename Write>
void write_rows(const WritableHeadRows<Scalar>& rows, const Places& places, int64_t width,
                Compute<Scalar>* pad, const Write& write) {
  if constexpr (std::is_same_v<Scalar, Compute<Scalar>>) {
    if (readable_in_place<Scalar>(width)) return write(rows_in_place(rows, places));
  }
  write(rows_on_pad(pad, width));
  scatter_rows(pad, width, places, rows);
}

}  // namespace perception3d
