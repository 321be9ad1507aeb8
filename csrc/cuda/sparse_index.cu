#include "cuda/row_groups.cuh"
#include "cuda/sparse_index.h"

namespace perception3d {
namespace cuda {
namespace {

// A voxel, the output cell b, z, y, x that sees it, and the tap under which it does; `exists` says
// whether there is such an output.
struct Sight {
  int64_t voxel, cell[4], tap;
  bool exists;
};

__device__ __forceinline__ bool contains(const StridedGrid& grid, const int32_t* cell) {
  const int64_t* shape = grid.spatial_shape;
  return cell[0] >= 0 && cell[0] < grid.batch_size && cell[1] >= 0 && cell[1] < shape[0] &&
         cell[2] >= 0 && cell[2] < shape[1] && cell[3] >= 0 && cell[3] < shape[2];
}

// Pair number `pair`: along each axis the last output that can see the voxel, or one of those
// before.
__device__ __forceinline__ Sight look(const StridedPairs& pairs, uint32_t pair) {
  const StridedGrid& grid = pairs.grid;
  uint32_t steps[3];
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    const uint32_t reach = static_cast<uint32_t>(pairs.reach[axis]);
    steps[axis] = pair % reach;
    pair /= reach;
  }
  const int32_t* at = pairs.coords + int64_t{4} * pair;
  Sight sight{pair, {at[0], 0, 0, 0}, 0, contains(grid, at)};
  check_index(sight.exists ? 0 : 1, 1, "sparse_index: coords outside the grid");
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    // Both are below 2^31: the sum has 32 bits, and its division is the quick one.
    const uint32_t start = static_cast<uint32_t>(at[1 + axis] + grid.padding[axis]);
    const uint32_t stride = static_cast<uint32_t>(grid.stride[axis]);
    const int64_t output = int64_t{start / stride} - steps[axis];
    const int64_t tap = start % stride + steps[axis] * grid.stride[axis];
    sight.exists &= output >= 0 && output < pairs.output_shape[axis] && tap < grid.kernel[axis];
    sight.cell[1 + axis] = output;
    sight.tap = sight.tap * grid.kernel[axis] + tap;
  }
  return sight;
}

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    find_outputs(StridedPairs pairs, RowGroups<Key> groups) {
  const int64_t pair = item_of_thread();
  if (pair >= groups.num_rows) return;
  const Sight sight = look(pairs, static_cast<uint32_t>(pair));
  int64_t key = sight.cell[0];
  for (int axis = 0; axis < 3; ++axis) {
    key = key * pairs.output_shape[axis] + sight.cell[1 + axis];
  }
  groups.keys[pair] = sight.exists ? static_cast<Key>(key) : groups.dropped;
  groups.rows[pair] = static_cast<int32_t>(pair);
}

// Both tables hold -1 before.
template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    enter_pairs(StridedPairs pairs, RowGroups<Key> groups, int64_t num_taps, int32_t* out_coords,
                int32_t* inputs, int32_t* outputs) {
  const int64_t place = item_of_thread();
  if (place >= groups.num_rows || groups.sorted_keys[place] == groups.dropped) return;
  const Sight sight = look(pairs, static_cast<uint32_t>(groups.sorted_rows[place]));
  const int64_t output = group_of_place(groups, place);
  outputs[sight.voxel * num_taps + sight.tap] = static_cast<int32_t>(output);
  // As unsigned numbers -1 is the largest, and the first of several voxels in a cell the smallest.
  const unsigned before =
      atomicMin(reinterpret_cast<unsigned*>(inputs + output * num_taps + sight.tap),
                static_cast<unsigned>(sight.voxel));
  check_index(before == ~0u ? 0 : 1, 1, "sparse_index: voxels in the cell of another");
  if (!starts_group(groups, place)) return;
  for (int i = 0; i < 4; ++i) out_coords[4 * output + i] = static_cast<int32_t>(sight.cell[i]);
}

}  // namespace

StridedPairs strided_pairs(const int32_t* coords, int64_t num_voxels, const StridedGrid& grid) {
  StridedPairs pairs{coords, num_voxels, grid, {}, {}};
  for (int axis = 0; axis < 3; ++axis) {
    pairs.output_shape[axis] = grid.output_shape(axis);
    pairs.reach[axis] = (grid.kernel[axis] + grid.stride[axis] - 1) / grid.stride[axis];
  }
  return pairs;
}

template <typename Key>
Status group_pairs(const StridedPairs& pairs, const RowGroups<Key>& groups, Stream stream) {
  const Status status = launch(find_outputs<Key>, blocks_for(groups.num_rows), kGroupThreads, 0,
                               stream, pairs, groups);
  return status != nullptr ? status : group_rows(groups, stream);
}

template <typename Key>
Status write_pairs(const StridedPairs& pairs, const RowGroups<Key>& groups, int64_t num_outputs,
                   int32_t* out_coords, int32_t* inputs, int32_t* outputs, Stream stream) {
  const int64_t num_taps = pairs.grid.num_taps();
  const size_t row_bytes = static_cast<size_t>(num_taps) * sizeof(int32_t);
  Status status = fill_bytes(outputs, 0xff, pairs.num_voxels * row_bytes, stream);
  if (status != nullptr || num_outputs == 0) return status;
  status = fill_bytes(inputs, 0xff, num_outputs * row_bytes, stream);
  if (status != nullptr) return status;
  return launch(enter_pairs<Key>, blocks_for(groups.num_rows), kGroupThreads, 0, stream, pairs,
                groups, num_taps, out_coords, inputs, outputs);
}

#define P3D_INSTANTIATE(Key)                                                                 \
  template Status group_pairs(const StridedPairs&, const RowGroups<Key>&, Stream);           \
  template Status write_pairs(const StridedPairs&, const RowGroups<Key>&, int64_t, int32_t*, \
                              int32_t*, int32_t*, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
