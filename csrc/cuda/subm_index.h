// Neighbours of every voxel under a convolution kernel, on CUDA.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "common/subm_grid.h"

namespace perception3d {
namespace cuda {

// A hash table of cells with open addressing.  A slot holds the number of a cell and, in the lowest
// row_bits bits, the voxel in it; all bits are 1 in a free one.
struct CellTable {
  unsigned long long* slots;
  int64_t capacity;  // a power of two, at least twice the number of voxels
  int row_bits;
  int shift;  // what a product of 64 bits is shifted by to give a place
};

// Sizes of the table of num_voxels < 2^31 - 1 voxels, without memory yet.
CellTable cell_table(int64_t num_voxels);

// Whether the cells of a grid can be numbered in the bits that row numbers leave.
bool fits(const CellTable& table, const SubmGrid& grid);

// neighbours (num_voxels, taps) as in cpu/subm_index.h.  A voxel outside the grid is nobody's
// neighbour and has none; of several in one cell all others see the first.
Status subm_index(const int32_t* coords, int64_t num_voxels, const SubmGrid& grid,
                  const CellTable& table, int32_t* neighbours, Stream stream);

}  // namespace cuda
}  // namespace perception3d
