// How the work of the linear attention is laid out on a GPU, for given widths.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/linear_attention_short.cuh"

namespace perception3d {
namespace cuda {

constexpr int64_t kMostShared = 227 * 1024;  // bytes of a block on Hopper

struct Plan {
  int tile;  // side of the products' tiles, 16 or 32
  int key_padded;
  int value_padded;
  int tile_rows;     // 0: no layout fits
  int number_bytes;  // of what is computed with, 4 or 8

  bool fits() const { return tile_rows > 0; }
  int64_t tiles(int64_t num_rows) const { return (num_rows + tile_rows - 1) / tile_rows; }
  int matrix() const { return key_padded * row_stride(value_padded); }
  int key_rows() const { return tile_rows * row_stride(key_padded); }
  int value_rows() const { return tile_rows * row_stride(value_padded); }
  int windows() const { return tile_rows * static_cast<int>(sizeof(Window)) / number_bytes; }
  // Shared memory of the kernel that needs most, bytes; each kernel takes its pieces from it.
  int64_t shared_forward() const {
    return bytes_of(windows() + 2 * key_rows() + value_rows() + matrix() + 5 * key_padded +
                    tile_rows);
  }
  int64_t shared_backward() const {
    return bytes_of(windows() + 3 * key_rows() + 2 * value_rows() + matrix() + 6 * key_padded +
                    2 * tile_rows);
  }
  int64_t bytes_of(int64_t numbers) const { return numbers * number_bytes; }
};

// Sides of the large tiles of products: of double, 16 x 16 fill the registers.
template <typename Scalar>
constexpr int kLargeTile = sizeof(Compute<Scalar>) == 8 ? 16 : 32;

// Tiles of 32 where padding to them does not cost more than their better reuse of registers gives.
// Rows: as many as leave room for three blocks on a multiprocessor, else two, else one.
template <typename Scalar>
Plan make_plan(const LinearAttention<Scalar>& attention, bool backward) {
  const int64_t key_width = attention.key_width, value_width = attention.value_width;
  Plan plan{16, 0, 0, 0, static_cast<int>(sizeof(Compute<Scalar>))};
  if (key_width > 4096 || value_width > 4096) return plan;
  const int d = std::max<int>(1, key_width), e = std::max<int>(1, value_width);
  const int large = round_up(d, 32) * round_up(e, 32), small = round_up(d, 16) * round_up(e, 16);
  plan.tile = 2 * large <= 3 * small ? kLargeTile<Scalar> : 16;
  plan.key_padded = round_up(d, plan.tile);
  plan.value_padded = round_up(e, plan.tile);
  for (const int64_t bytes : {75 * 1024, 113 * 1024, 227 * 1024}) {
    for (const int rows : {128, 64, 32}) {
      plan.tile_rows = rows;
      if ((backward ? plan.shared_backward() : plan.shared_forward()) <= bytes) return plan;
    }
  }
  plan.tile_rows = 0;
  return plan;
}

constexpr Status kTooWide =
    "heads this wide need more shared memory than a block can have (about 128 x 128 numbers)";

// Shared memory of the kernels for short windows, bytes: rows and pairs of each warp.
inline size_t short_shared_bytes(const Plan& plan, bool backward) {
  const int widths = 2 * row_stride(plan.key_padded) +
                     (backward ? 2 : 1) * row_stride(plan.value_padded) + kPairStride;
  return plan.bytes_of(kShortWarps * kWarp * widths);
}

template <typename Scalar>
bool strides_allow(const Scalar* numbers, int64_t row_stride, int64_t head_stride, int64_t width,
                   int piece) {
  const bool whole = row_stride % piece == 0 && head_stride % piece == 0 && width % piece == 0;
  return whole && reinterpret_cast<uintptr_t>(numbers) % (piece * sizeof(Scalar)) == 0;
}

template <typename Scalar>
HeadSource<Scalar> source_of(const HeadRows<Scalar>& rows, int64_t width) {
  const bool packed =
      strides_allow(rows.numbers, rows.row_stride, rows.head_stride, width, kPackedWidth<Scalar>);
  return {rows, static_cast<int>(width), packed};
}

template <typename Scalar>
HeadTarget<Scalar> target_of(const WritableHeadRows<Scalar>& rows, int64_t width) {
  const bool packed = strides_allow(rows.numbers, rows.row_stride, rows.head_stride, 4, 4);
  return {rows, static_cast<int>(width), packed};
}

template <typename Scalar>
Task<Scalar> make_task(const LinearAttention<Scalar>& attention, int64_t num_rows,
                       const Plan& plan) {
  return {source_of(attention.query, attention.key_width),
          source_of(attention.key, attention.key_width),
          source_of(attention.value, attention.value_width),
          attention.offsets,
          attention.num_windows,
          attention.order,
          num_rows,
          static_cast<int>(attention.heads),
          plan.key_padded,
          plan.value_padded,
          plan.tile_rows,
          attention.epsilon};
}

}  // namespace cuda
}  // namespace perception3d
