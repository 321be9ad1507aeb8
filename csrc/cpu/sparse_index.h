// Which voxel meets which output of a strided sparse convolution, under which tap.
#pragma once

#include <cstdint>
#include <vector>

#include "common/strided_grid.h"
#include "cpu/cell_lines.h"

namespace perception3d {

// What is wrong with coordinates.  row < 0: nothing.  Else the voxel `row` lies outside the grid,
// or, with other >= 0, in the same cell as the voxel `other`.
struct StridedFault {
  int64_t row;
  int64_t other;
};

static_assert(kStridedLine == kLineCells, "outputs are numbered in whole lines");

// Collects the outputs: all cells that see at least one voxel, of at most 2^31 - 1.
class SparseIndex {
 public:
  SparseIndex(const int32_t* coords, int64_t num_voxels, const StridedGrid& grid);

  StridedFault fault() const { return fault_; }
  int64_t num_outputs() const { return num_outputs_; }

  // out_coords (num_outputs, 4) ascending; inputs (num_outputs, taps): row of the voxel at a tap
  // of an output, -1 where none is; outputs (num_voxels, taps): row of the output that sees a
  // voxel at a tap.  On a fault the tables are incomplete.  Needs a fault() without fault.
  StridedFault write(int32_t* out_coords, int32_t* inputs, int32_t* outputs) const;

 private:
  void collect();
  void rank();

  const int32_t* coords_;
  int64_t num_voxels_;
  StridedGrid grid_;
  int64_t shape_[3];     // of the outputs
  int64_t line_blocks_;  // lines along x
  CellLines lines_;
  std::vector<int32_t> sorted_;   // numbers of lines by ascending key
  std::vector<int32_t> touched_;  // numbers of lines that each voxel falls on, in turn
  StridedFault fault_{-1, -1};
  int64_t num_outputs_ = 0;
};

}  // namespace perception3d
