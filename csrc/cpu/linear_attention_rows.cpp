#include <array>

#include "cpu/linear_attention_blocks.h"

namespace perception3d {
namespace {

template <bool kRelu, typename Scalar>
P3D_INLINE void gather_lanes(const Scalar* source, Compute<Scalar>* target) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanesOf<Number>;
  Vector<Number> numbers;
  load_vector<lanes>(source, numbers);
  if (kRelu) numbers = numbers <= 0 ? Vector<Number>{} : numbers;
  store_vector<lanes>(numbers, target);
}

// Rows of kVectors whole vectors, or of any width if kVectors is 0.
template <int kVectors, bool kRelu, bool kOrdered, typename Scalar>
P3D_INLINE void gather_walk(const HeadRows<Scalar>& rows, const Places& places, int64_t width,
                            Compute<Scalar>* block) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanesOf<Number>;
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    const int64_t place = places.first + i;
    const Scalar* source = rows.at(kOrdered ? places.order[place] : place, places.head);
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
  constexpr int lanes = kLanesOf<Compute<Scalar>>;
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
P3D_INLINE void scatter_block(const Compute<Scalar>* block, int64_t width, const Places& places,
                              const WritableHeadRows<Scalar>& rows) {
  using Number = Compute<Scalar>;
  constexpr int lanes = kLanesOf<Number>;
  Scalar* base = rows.numbers + places.head * rows.head_stride;
  const int64_t* order = places.order == nullptr ? nullptr : places.order + places.first;
  const int64_t stride = padded<Number>(width);
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < places.count; ++i) {
    const Number* source = block + i * stride;
    Scalar* target = base + (order == nullptr ? places.first + i : order[i]) * rows.row_stride;
    int64_t c = 0;
    for (; c < whole; c += lanes) {
      Vector<Number> numbers;
      load_vector<kLanesOf<Number>>(source + c, numbers);
      store_vector<kLanesOf<Number>>(numbers, target + c);
    }
    for (; c < width; ++c) store(source[c], target[c]);
  }
}

constexpr auto count_up() {
  std::array<int64_t, kBlockRows> numbers{};
  for (int64_t i = 0; i < kBlockRows; ++i) numbers[i] = i;
  return numbers;
}
constexpr std::array<int64_t, kBlockRows> kNumbersInTurn = count_up();

}  // namespace

const int64_t* const kInTurn = kNumbersInTurn.data();

// One function per storage type, compiled for several machines.
#define P3D_DEFINE(Scalar)                                                                        \
  P3D_CLONES void gather_rows(const HeadRows<Scalar>& rows, const Places& places, int64_t width,  \
                              bool relu, Compute<Scalar>* block) {                                \
    gather_block(rows, places, width, relu, block);                                               \
  }                                                                                               \
  P3D_CLONES void scatter_rows(const Compute<Scalar>* block, int64_t width, const Places& places, \
                               const WritableHeadRows<Scalar>& rows) {                            \
    scatter_block(block, width, places, rows);                                                    \
  }
P3D_FOR_EACH_STORAGE(P3D_DEFINE)
#undef P3D_DEFINE

}  // namespace perception3d
