// Occupied cells of a sparse grid as bits of lines of 64 cells, in a hash table.
//
// Neighbours along a line are neighbouring bits of one word, so a convolution kernel costs one
// look-up per line that it touches, not one per tap; and memory grows with the number of voxels,
// never with the size of the grid.
#pragma once

#include <cstdint>
#include <vector>

#include "common/parallel.h"

namespace perception3d {

constexpr int kLineCells = 64;

// 64 cells in a row.  Cells are ranked line by line: those of this line have the ranks first,
// first + 1, ... from low bit to high.
struct CellLine {
  int64_t key;
  uint64_t bits;
  int32_t first;
  int32_t row;  // of the first voxel that was put here
};

class CellLines {
 public:
  // num_voxels: how many cells will be put in, at most.
  explicit CellLines(int64_t num_voxels) {
    lines_.push_back(CellLine{-1, 0, 0, -1});
    resize_table(num_voxels / 2);
  }

  // Number of the line with this key, which is made if there is none; `row` is its first voxel.
  P3D_INLINE int32_t insert(int64_t key, int32_t row) {
    size_t place = place_of(key);
    for (; table_[place] != 0; place = (place + 1) & mask_) {
      if (lines_[table_[place]].key == key) return table_[place];
    }
    const int32_t number = static_cast<int32_t>(lines_.size());
    table_[place] = number;
    lines_.push_back(CellLine{key, 0, 0, row});
    if (2 * lines_.size() > table_.size()) resize_table(2 * table_.size());
    return number;
  }

  // Number of the line with this key; 0, an empty line, if there is none.
  P3D_INLINE int32_t find(int64_t key) const {
    size_t place = place_of(key);
    for (; table_[place] != 0; place = (place + 1) & mask_) {
      if (lines_[table_[place]].key == key) return table_[place];
    }
    return 0;
  }

  // Lines are numbered from 1; number 0 is an empty one.
  int64_t size() const { return static_cast<int64_t>(lines_.size()); }
  P3D_INLINE CellLine& operator[](int32_t number) { return lines_[number]; }
  P3D_INLINE const CellLine& operator[](int32_t number) const { return lines_[number]; }

 private:
  P3D_INLINE size_t place_of(int64_t key) const {
    return (static_cast<uint64_t>(key) * 0x9e3779b97f4a7c15u) >> shift_;  // Fibonacci hashing
  }

  // Gives the table at least `places` places and enters all lines again.
  void resize_table(int64_t places) {
    shift_ = 64 - 10;
    while ((int64_t{1} << (64 - shift_)) < places) --shift_;
    table_.assign(size_t{1} << (64 - shift_), 0);
    mask_ = table_.size() - 1;
    for (size_t number = 1; number < lines_.size(); ++number) {
      size_t place = place_of(lines_[number].key);
      while (table_[place] != 0) place = (place + 1) & mask_;
      table_[place] = static_cast<int32_t>(number);
    }
  }

  std::vector<CellLine> lines_;
  std::vector<int32_t> table_;  // numbers of lines, 0 where free; open addressing
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace perception3d
