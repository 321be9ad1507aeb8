#include <algorithm>
#include <cstring>

#include "cpu/linear_attention_tiles.h"

namespace perception3d {
namespace {

// Where the rows of a block lie in memory.
template <typename Scalar, bool kOrdered>
class RowWalk {
 public:
  P3D_INLINE RowWalk(const HeadRows<Scalar>& rows, const Places& places, int64_t width)
      : rows_(rows),
        places_(places),
        bytes_(width * static_cast<int64_t>(sizeof(Scalar))),
        ahead_place_(places.ahead_place),
        ahead_head_(places.ahead_head) {}

  P3D_INLINE const Scalar* row(int64_t i) const { return at(places_.first + i, places_.head); }

  P3D_INLINE void fetch_ahead() {
    if (ahead_place_ >= places_.last) return;
    const char* byte = reinterpret_cast<const char*>(at(ahead_place_, ahead_head_));
    for (int64_t line = 0; line < bytes_; line += 64) __builtin_prefetch(byte + line, 0, 2);
    if (++ahead_head_ == places_.heads) {
      ahead_head_ = 0;
      ++ahead_place_;
    }
  }

 private:
  P3D_INLINE const Scalar* at(int64_t place, int64_t head) const {
    const int64_t row = kOrdered ? places_.order[place] : place;
    return rows_.numbers + row * rows_.row_stride + head * rows_.head_stride;
  }

  const HeadRows<Scalar> rows_;
  const Places places_;
  int64_t bytes_;
  int64_t ahead_place_;
  int64_t ahead_head_;
};

template <bool kRelu, typename Scalar>
P3D_INLINE void gather_lanes(const Scalar* source, Compute<Scalar>* target) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanes<Number>;
  Lanes<Number> numbers;
  load_vector<lanes>(source, numbers);
  if (kRelu) numbers = numbers <= 0 ? Lanes<Number>{} : numbers;
  store_vector<lanes>(numbers, target);
}

// Rows of kVectors whole vectors, or of any width if kVectors is 0.
template <int kVectors, bool kRelu, bool kOrdered, typename Scalar>
P3D_INLINE void gather_walk(const HeadRows<Scalar>& rows, const Places& places, int64_t width,
                            Compute<Scalar>* block) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanes<Number>;
  RowWalk<Scalar, kOrdered> walk(rows, places, kVectors == 0 ? width : kVectors * lanes);
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    walk.fetch_ahead();
    const Scalar* source = walk.row(i);
    if (kVectors > 0) {
      Number* target = block + i * (kVectors * lanes);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        gather_lanes<kRelu>(source + v * lanes, target + v * lanes);
      }
      continue;
    }
    Number* target = block + i * stride;
    int64_t c = 0;
    for (; c < whole; c += lanes) gather_lanes<kRelu>(source + c, target + c);
    for (; c < width; ++c) {
      const Number number = load(source[c]);
      target[c] = kRelu && number <= 0 ? Number{0} : number;
    }
    for (; c < stride; ++c) target[c] = 0;
  }
}

template <bool kRelu, bool kOrdered, typename Scalar>
P3D_INLINE void gather_width(const HeadRows<Scalar>& rows, const Places& places, int64_t width,
                             Compute<Scalar>* block) {
  constexpr int lanes = kLanes<Compute<Scalar>>;
  switch (width % lanes == 0 ? width / lanes : 0) {
    case 1:
      return gather_walk<1, kRelu, kOrdered>(rows, places, width, block);
    case 2:
      return gather_walk<2, kRelu, kOrdered>(rows, places, width, block);
    case 4:
      return gather_walk<4, kRelu, kOrdered>(rows, places, width, block);
    default:
      return gather_walk<0, kRelu, kOrdered>(rows, places, width, block);
  }
}

template <typename Scalar>
P3D_INLINE void gather_block(const HeadRows<Scalar>& rows, const Places& places, int64_t width,
                             bool relu, Compute<Scalar>* block) {
  if (places.order == nullptr) {
    relu ? gather_width<true, false>(rows, places, width, block)
         : gather_width<false, false>(rows, places, width, block);
  } else {
    relu ? gather_width<true, true>(rows, places, width, block)
         : gather_width<false, true>(rows, places, width, block);
  }
}

template <typename Scalar>
P3D_INLINE void scatter_block(const Compute<Scalar>* block, const Compute<Scalar>* scale,
                              int64_t width, const Places& places,
                              const WritableHeadRows<Scalar>& rows) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanes<Number>;
  Scalar* base = rows.numbers + places.head * rows.head_stride;
  const int64_t* order = places.order == nullptr ? nullptr : places.order + places.first;
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    const Number* source = block + i * stride;
    Scalar* target = base + (order == nullptr ? places.first + i : order[i]) * rows.row_stride;
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
