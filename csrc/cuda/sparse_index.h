// Which voxel meets which output of a strided sparse convolution, under which tap, on CUDA.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "common/strided_grid.h"
#include "cuda/row_groups.h"

namespace perception3d {
namespace cuda {

// The pairs of a voxel and an output that may see it, as rows to be grouped by output: `reach`
// outputs along each axis for every voxel.
struct StridedPairs {
  const int32_t* coords;  // (num_voxels, 4)
  int64_t num_voxels;
  StridedGrid grid;
  int64_t output_shape[3], reach[3];

  int64_t count() const { return num_voxels * reach[0] * reach[1] * reach[2]; }
  int64_t key_bound() const {
    return grid.batch_size * output_shape[0] * output_shape[1] * output_shape[2];
  }
};

StridedPairs strided_pairs(const int32_t* coords, int64_t num_voxels, const StridedGrid& grid);

// Groups the pairs that exist: a group is an output, groups ascend by cell.  A voxel outside the
// grid has no pairs.
template <typename Key>
Status group_pairs(const StridedPairs& pairs, const RowGroups<Key>& groups, Stream stream);

// After group_pairs: out_coords, inputs and outputs as cpu/sparse_index.h has them.  Of several
// voxels in one cell the first is an input.
template <typename Key>
Status write_pairs(const StridedPairs& pairs, const RowGroups<Key>& groups, int64_t num_outputs,
                   int32_t* out_coords, int32_t* inputs, int32_t* outputs, Stream stream);

}  // namespace cuda
}  // namespace perception3d
