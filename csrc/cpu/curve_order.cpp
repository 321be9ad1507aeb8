#include "cpu/curve_order.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "cpu/radix_sort.h"

namespace perception3d {
namespace {

constexpr int64_t kRowsPerWorker = 16384;
constexpr int64_t kTile = 8;
typedef uint64_t Words __attribute__((vector_size(kTile * sizeof(uint64_t))));

bool is_outside(const int32_t* row, const SpaceCurve& curve) {
  for (int axis = 1; axis < 4; ++axis) {
    if (static_cast<uint64_t>(row[axis] + curve.shift) >> curve.rank != 0) return true;
  }
  return false;
}

// Indices of up to kTile rows; says whether all lie inside the cube.
P3D_INLINE bool index_tile(const int32_t* coords, int64_t count, const SpaceCurve& curve,
                           int64_t* index) {
  uint64_t cells[3][kTile] = {};
  uint64_t all = 0;
  for (int64_t i = 0; i < count; ++i) {
    for (int axis = 0; axis < 3; ++axis) {
      cells[axis][i] = static_cast<uint64_t>(coords[4 * i + 1 + axis] + curve.shift);
      all |= cells[axis][i];
    }
  }
  if (all >> curve.rank != 0) return false;
  Words z, y, x, place;
  std::memcpy(&z, cells[0], sizeof(z));
  std::memcpy(&y, cells[1], sizeof(y));
  std::memcpy(&x, cells[2], sizeof(x));
  index_on_curve<Words>(z, y, x, curve, place);
  std::memcpy(index, &place, count * sizeof(uint64_t));
  return true;
}

// Returns the first row of a tile that is not wholly inside, or -1.
P3D_CLONES int64_t index_rows(const int32_t* coords, int64_t begin, int64_t end,
                              const SpaceCurve& curve, int64_t* index) {
  for (int64_t row = begin; row < end; row += kTile) {
    const int64_t count = std::min(kTile, end - row);
    if (!index_tile(coords + 4 * row, count, curve, index + row)) return row;
  }
  return -1;
}

int bits_below(int64_t bound) {
  int bits = 0;
  while ((int64_t{1} << bits) < bound) ++bits;
  return bits;
}

}  // namespace

int64_t curve_index(const int32_t* coords, int64_t count, const SpaceCurve& curve, int64_t* index,
                    int threads) {
  const int workers = worker_count(threads, count, kRowsPerWorker);
  std::vector<int64_t> outside(workers, -1);
  for_each_block(workers, count, [&](int worker, int64_t begin, int64_t end) {
    outside[worker] = index_rows(coords, begin, end, curve, index);
  });
  for (int64_t row : outside) {
    if (row < 0) continue;
    while (!is_outside(coords + 4 * row, curve)) ++row;
    return row;
  }
  return -1;
}

// A stable sort by the digits of (frame, index), lowest first.  A digit and the number of a row
// share a 64-bit word, so most batches take one round.
void curve_order(const int32_t* coords, const int64_t* index, int64_t count, int64_t batch_size,
                 int rank, int64_t* order, int64_t* inverse, int64_t* offsets, int threads) {
  const int row_bits = std::max(bits_below(count), 1);
  const int index_bits = 3 * rank, key_bits = index_bits + bits_below(batch_size);
  const uint64_t row_mask = (uint64_t{1} << row_bits) - 1;
  std::vector<uint64_t> words(count);
  for (int64_t i = 0; i < count; ++i) words[i] = i;
  for (int first = 0; first < key_bits; first += 64 - row_bits) {
    const int bits = std::min(64 - row_bits, key_bits - first);
    for (uint64_t& word : words) {
      const int64_t row = static_cast<int64_t>(word & row_mask);
      // Frame and index side by side are longer than 64 bits in the largest cubes.
      const uint64_t frame = static_cast<uint64_t>(coords[4 * row]);
      uint64_t digit = first < 64 ? static_cast<uint64_t>(index[row]) >> first : 0;
      digit |= first < index_bits ? frame << (index_bits - first) : frame >> (first - index_bits);
      word = digit << row_bits | static_cast<uint64_t>(row);
    }
    radix_sort(words, row_bits, bits, threads);
  }
  std::fill_n(offsets, batch_size + 1, int64_t{0});
  for (int64_t place = 0; place < count; ++place) {
    const int64_t row = static_cast<int64_t>(words[place] & row_mask);
    order[place] = row;
    inverse[row] = place;
    ++offsets[coords[4 * row] + 1];
  }
  for (int64_t frame = 0; frame < batch_size; ++frame) offsets[frame + 1] += offsets[frame];
}

}  // namespace perception3d
