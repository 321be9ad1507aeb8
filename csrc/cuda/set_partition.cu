#include "cuda/row_groups.cuh"
#include "cuda/segment_search.cuh"
#include "cuda/set_partition.h"

namespace perception3d {
namespace cuda {
namespace {

// Cells are compared as unsigned numbers: the sign bit is flipped.
constexpr uint32_t kSignBit = 0x80000000u;

__global__ void __launch_bounds__(kGroupThreads)
    count_sets_of_windows(WindowTable table, int64_t set_size, int64_t* counts) {
  const int64_t window = item_of_thread();
  if (window > table.num_windows) return;
  const bool behind = window == table.num_windows;  // becomes the number of all sets
  const int64_t rows = behind ? 0 : table.offsets[window + 1] - table.offsets[window];
  counts[window] = (rows + set_size - 1) / set_size;
}

// lowest and highest (3): cells of all voxels, sign bit flipped.  The order of atomics on integers
// changes no result.
__global__ void __launch_bounds__(kGroupThreads)
    find_cell_box(WindowTable table, unsigned long long* lowest, unsigned long long* highest) {
  P3D_SHARED(unsigned, low, 3);
  P3D_SHARED(unsigned, high, 3);
  if (threadIdx.x < 3) {
    low[threadIdx.x] = ~0u;
    high[threadIdx.x] = 0;
  }
  __syncthreads();
  const int64_t voxel = item_of_thread();
  for (int axis = 0; axis < 3; ++axis) {
    const bool inside = voxel < table.num_voxels;
    const unsigned cell =
        inside ? static_cast<unsigned>(table.cell_in_window[3 * voxel + axis]) ^ kSignBit : 0;
    const unsigned warp_low = __reduce_min_sync(0xffffffffu, inside ? cell : ~0u);
    const unsigned warp_high = __reduce_max_sync(0xffffffffu, cell);
    if (threadIdx.x % 32 == 0) {
      atomicMin(&low[axis], warp_low);
      atomicMax(&high[axis], warp_high);
    }
  }
  __syncthreads();
  if (threadIdx.x < 3) {
    atomicMin(&lowest[threadIdx.x], static_cast<unsigned long long>(low[threadIdx.x]));
    atomicMax(&highest[threadIdx.x], static_cast<unsigned long long>(high[threadIdx.x]));
  }
}

template <typename Key>
__global__ void __launch_bounds__(kGroupThreads)
    find_sort_keys(WindowTable table, CellBox box, RowGroups<Key> groups) {
  const int64_t place = item_of_thread();
  if (place >= table.num_voxels) return;
  const int64_t window = segment_of_place(table.offsets, 0, table.num_windows - 1, place);
  const int64_t voxel = table.order[place];
  check_index(voxel, table.num_voxels, "set_partition: order");
  const int32_t* cell = table.cell_in_window + 3 * voxel;
  const Key z = static_cast<Key>(cell[0] - box.lowest[0]), nz = static_cast<Key>(box.extent[0]);
  const Key y = static_cast<Key>(cell[1] - box.lowest[1]), ny = static_cast<Key>(box.extent[1]);
  const Key x = static_cast<Key>(cell[2] - box.lowest[2]), nx = static_cast<Key>(box.extent[2]);
  const Key w = static_cast<Key>(window), windows = static_cast<Key>(table.num_windows);
  groups.keys[place] = ((w * ny + y) * nx + x) * nz + z;
  groups.keys[table.num_voxels + place] = (((windows + w) * nx + x) * ny + y) * nz + z;
  groups.rows[place] = static_cast<int32_t>(place);
  groups.rows[table.num_voxels + place] = static_cast<int32_t>(place);
}

// A thread for each slot of both orders.
__global__ void __launch_bounds__(kGroupThreads)
    fill_slots(WindowTable table, const int64_t* first_set, int64_t sets, int64_t set_size,
               const int32_t* sorted_places, SetTables tables) {
  const int64_t all_slots = sets * set_size;
  const int64_t item = item_of_thread();
  if (item >= 2 * all_slots) return;
  const int64_t turned = item >= all_slots ? 1 : 0;
  const int64_t slot = item - turned * all_slots;
  const int64_t window = segment_of_place(first_set, 0, table.num_windows - 1, slot / set_size);
  const int64_t begin = table.offsets[window], rows = table.offsets[window + 1] - begin;
  const int64_t slots = (first_set[window + 1] - first_set[window]) * set_size;
  const int64_t nth = slot - first_set[window] * set_size;
  // Slot n of a window holds its sorted voxel floor(n * rows / slots).
  const int64_t position = nth * rows / slots;
  const bool repeats = nth > 0 && (nth - 1) * rows / slots == position;
  const int64_t place = sorted_places[turned * table.num_voxels + begin + position];
  const int64_t voxel = table.order[place];
  check_index(voxel, table.num_voxels, "set_partition: order");
  tables.voxel_of_slot[item] = voxel;
  tables.repeated[item] = repeats;
  if (!repeats) {
    tables.slot_of_voxel[turned * table.num_voxels + voxel] = slot;
    tables.member[turned * table.num_voxels + begin + position] = voxel;
  }
  if (turned == 0 && slot % set_size == 0) tables.set_offset[slot / set_size] = begin + position;
  if (item == 0) tables.set_offset[sets] = table.num_voxels;
}

}  // namespace

CellBox CellBox::from(const int64_t* totals) {
  CellBox box{};
  for (int axis = 0; axis < 3; ++axis) {
    box.lowest[axis] = totals[1 + axis] - static_cast<int64_t>(kSignBit);
    box.extent[axis] = totals[4 + axis] - totals[1 + axis] + 1;
  }
  return box;
}

int64_t CellBox::key_bound(int64_t num_windows) const {
  double bound = 2.0 * static_cast<double>(num_windows);
  for (const int64_t cells : extent) bound *= static_cast<double>(cells);
  return bound < 9e18 ? 2 * num_windows * extent[0] * extent[1] * extent[2] : -1;
}

Status count_sets(const WindowTable& table, int64_t set_size, int64_t* counts, void* scratch,
                  int64_t scratch_bytes, Stream stream) {
  auto* lowest = reinterpret_cast<unsigned long long*>(counts + table.num_windows + 1);
  unsigned long long* highest = lowest + 3;
  Status status = launch(count_sets_of_windows, blocks_for(table.num_windows + 1), kGroupThreads, 0,
                         stream, table, set_size, counts);
  if (status == nullptr) status = fill_bytes(lowest, 0xff, 3 * sizeof(*lowest), stream);
  if (status == nullptr) status = fill_bytes(highest, 0, 3 * sizeof(*highest), stream);
  if (status == nullptr) {
    status = launch(find_cell_box, blocks_for(table.num_voxels), kGroupThreads, 0, stream, table,
                    lowest, highest);
  }
  if (status != nullptr) return status;
  return device_exclusive_sum(counts, counts, table.num_windows + 1, scratch, scratch_bytes,
                              stream);
}

template <typename Key>
Status sort_windows(const WindowTable& table, const CellBox& box, const RowGroups<Key>& groups,
                    Stream stream) {
  const Status status = launch(find_sort_keys<Key>, blocks_for(table.num_voxels), kGroupThreads, 0,
                               stream, table, box, groups);
  return status != nullptr ? status : sort_keys(groups, stream);
}

Status fill_sets(const WindowTable& table, const int64_t* counts, int64_t sets, int64_t set_size,
                 const int32_t* sorted_places, const SetTables& tables, Stream stream) {
  if (sets == 0) return fill_bytes(tables.set_offset, 0, sizeof(int64_t), stream);
  return launch(fill_slots, blocks_for(2 * sets * set_size), kGroupThreads, 0, stream, table,
                counts, sets, set_size, sorted_places, tables);
}

#define P3D_INSTANTIATE(Key) \
  template Status sort_windows(const WindowTable&, const CellBox&, const RowGroups<Key>&, Stream);
P3D_INSTANTIATE(uint32_t)
P3D_INSTANTIATE(uint64_t)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
