#include <algorithm>
#include <cstring>

#include "cpu/linear_attention_tiles.h"

namespace perception3d {
namespace {

template <typename Scalar>
P3D_INLINE void prefetch_row(const Scalar* row, int64_t width) {
  const char* byte = reinterpret_cast<const char*>(row);
  const int64_t bytes = width * static_cast<int64_t>(sizeof(Scalar));
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(byte + i);
}

template <typename Scalar>
P3D_INLINE void gather_block(const HeadRows<Scalar>& rows, const Places& places, int64_t width,
                             bool relu, Compute<Scalar>* block) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanes<Number>;
  const Scalar* base = rows.numbers + places.head * rows.head_stride;
  const Scalar* next_base = rows.numbers + places.next_head * rows.head_stride;
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    prefetch_row(next_base + places.next_row(i) * rows.row_stride, width);
    const Scalar* source = base + places.row(i) * rows.row_stride;
    Number* target = block + i * stride;
    int64_t c = 0;
    for (; c < whole; c += lanes) {
      Lanes<Number> numbers;
      load_vector<kLanes<Number>>(source + c, numbers);
      if (relu) numbers = numbers <= 0 ? Lanes<Number>{} : numbers;
      store_vector<kLanes<Number>>(numbers, target + c);
    }
    for (; c < width; ++c) {
      const Number number = load(source[c]);
      target[c] = relu && number <= 0 ? Number{0} : number;
    }
    for (; c < stride; ++c) target[c] = 0;
  }
}

template <typename Scalar>
P3D_INLINE void scatter_block(const Compute<Scalar>* block, const Compute<Scalar>* scale,
                              int64_t width, const Places& places,
                              const WritableHeadRows<Scalar>& rows) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanes<Number>;
  Scalar* base = rows.numbers + places.head * rows.head_stride;
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    const Number* source = block + i * stride;
    Scalar* target = base + places.row(i) * rows.row_stride;
    const Number factor = scale == nullptr ? Number{1} : scale[i];
    int64_t c = 0;
    for (; c < whole; c += lanes) {
      Lanes<Number> numbers;
      load_vector<kLanes<Number>>(source + c, numbers);
      numbers *= factor;
      store_vector<kLanes<Number>>(numbers, target + c);
    }
    for (; c < width; ++c) store(source[c] * factor, target[c]);
  }
}

}  // namespace

template <typename Number>
Pad<Number>::Pad(int64_t count) {
  const int64_t bytes = padded<Number>(count) * static_cast<int64_t>(sizeof(Number));
  if (bytes == 0) return;
  void* memory = std::aligned_alloc(kAlignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  numbers_.reset(static_cast<Number*>(memory));
}

// One function per storage type, compiled for several machines.
#define P3D_DEFINE(Scalar)                                                                       \
  P3D_CLONES void gather_rows(const HeadRows<Scalar>& rows, const Places& places, int64_t width, \
                              bool relu, Compute<Scalar>* block) {                               \
    gather_block(rows, places, width, relu, block);                                              \
  }                                                                                              \
  P3D_CLONES void scatter_rows(const Compute<Scalar>* block, const Compute<Scalar>* scale,       \
                               int64_t width, const Places& places,                              \
                               const WritableHeadRows<Scalar>& rows) {                           \
    scatter_block(block, scale, width, places, rows);                                            \
  }
P3D_DEFINE(float)
P3D_DEFINE(double)
P3D_DEFINE(BFloat16)
P3D_DEFINE(Float16)
#undef P3D_DEFINE

template class Pad<float>;
template class Pad<double>;

}  // namespace perception3d
