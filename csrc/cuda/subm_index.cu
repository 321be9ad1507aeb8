#include "common/launch.cuh"
#include "cuda/subm_index.h"

namespace perception3d {
namespace cuda {
namespace {

typedef unsigned long long Slot;

constexpr Slot kFree = ~Slot{0};
constexpr int kThreads = 256;
constexpr int kVoxelsPerGroup = 4;

__device__ __forceinline__ int64_t place_of(const CellTable& table, int64_t cell) {
  return (static_cast<Slot>(cell) * 0x9e3779b97f4a7c15ull) >> table.shift;  // Fibonacci hashing
}

// Number of a cell of the grid; -1 outside.
__device__ __forceinline__ int64_t cell_number(const SubmGrid& grid, int64_t b, int64_t z,
                                               int64_t y, int64_t x) {
  const int64_t* shape = grid.spatial_shape;
  const bool inside = b >= 0 && b < grid.batch_size && z >= 0 && z < shape[0] && y >= 0 &&
                      y < shape[1] && x >= 0 && x < shape[2];
  return inside ? ((b * shape[0] + z) * shape[1] + y) * shape[2] + x : -1;
}

__global__ void __launch_bounds__(kThreads)
    enter_voxels(const int32_t* coords, int64_t num_voxels, SubmGrid grid, CellTable table) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= num_voxels) return;
  const int32_t* at = coords + 4 * row;
  const int64_t cell = cell_number(grid, at[0], at[1], at[2], at[3]);
  check_index(cell < 0 ? 1 : 0, 1, "subm_index: coords outside the grid");
  if (cell < 0) return;
  const Slot own = static_cast<Slot>(cell) << table.row_bits | static_cast<Slot>(row);
  for (int64_t place = place_of(table, cell);; place = (place + 1) & (table.capacity - 1)) {
    const Slot before = atomicCAS(&table.slots[place], kFree, own);
    if (before == kFree) return;
    if (before >> table.row_bits == static_cast<Slot>(cell)) {
      check_index(1, 1, "subm_index: voxels in the cell of another");
      atomicMin(&table.slots[place], own);
      return;
    }
  }
}

__device__ __forceinline__ int32_t find_voxel(const CellTable& table, int64_t cell) {
  for (int64_t place = place_of(table, cell);; place = (place + 1) & (table.capacity - 1)) {
    const Slot slot = __ldg(&table.slots[place]);
    if (slot == kFree) return -1;
    if (slot >> table.row_bits == static_cast<Slot>(cell)) {
      return static_cast<int32_t>(slot & ((Slot{1} << table.row_bits) - 1));
    }
  }
}

// A group of `lanes` threads writes the table's rows of kVoxelsPerGroup voxels, a lane per tap.
__global__ void __launch_bounds__(kThreads)
    find_neighbours(const int32_t* coords, int64_t num_voxels, SubmGrid grid, CellTable table,
                    int num_taps, int lanes, int32_t* neighbours) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * (kThreads / lanes) + threadIdx.x / lanes;
  const int ky = static_cast<int>(grid.kernel[1]), kx = static_cast<int>(grid.kernel[2]);
  for (int tap = threadIdx.x % lanes; tap < num_taps; tap += lanes) {
    const int64_t z = tap / (ky * kx) - grid.kernel[0] / 2;
    const int64_t y = tap / kx % ky - ky / 2, x = tap % kx - kx / 2;
    for (int i = 0; i < kVoxelsPerGroup; ++i) {
      const int64_t row = group * kVoxelsPerGroup + i;
      if (row >= num_voxels) break;
      const int32_t* at = coords + 4 * row;
      // A voxel outside the grid has no neighbours inside it either.
      const bool inside = cell_number(grid, at[0], at[1], at[2], at[3]) >= 0;
      const int64_t cell = cell_number(grid, at[0], at[1] + z, at[2] + y, at[3] + x);
      neighbours[row * num_taps + tap] = inside && cell >= 0 ? find_voxel(table, cell) : -1;
    }
  }
}

int bits_below(int64_t bound) {
  int bits = 0;
  while (bits < 63 && (int64_t{1} << bits) < bound) ++bits;
  return bits;
}

}  // namespace

CellTable cell_table(int64_t num_voxels) {
  const int place_bits = bits_below(2 * num_voxels > 32 ? 2 * num_voxels : 32);
  return {nullptr, int64_t{1} << place_bits, bits_below(num_voxels), 64 - place_bits};
}

bool fits(const CellTable& table, const SubmGrid& grid) {
  const int64_t* shape = grid.spatial_shape;
  const double cells = static_cast<double>(grid.batch_size) * static_cast<double>(shape[0]) *
                       static_cast<double>(shape[1]) * static_cast<double>(shape[2]);
  return cells <= static_cast<double>(int64_t{1} << (62 - table.row_bits)) * 2;
}

Status subm_index(const int32_t* coords, int64_t num_voxels, const SubmGrid& grid,
                  const CellTable& table, int32_t* neighbours, Stream stream) {
  if (num_voxels == 0) return nullptr;
  Status status = fill_bytes(table.slots, 0xff, table.capacity * sizeof(Slot), stream);
  if (status != nullptr) return status;
  status = launch(enter_voxels, (num_voxels + kThreads - 1) / kThreads, kThreads, 0, stream, coords,
                  num_voxels, grid, table);
  if (status != nullptr) return status;
  const int num_taps = static_cast<int>(grid.num_taps());
  int lanes = 1;
  while (lanes < 32 && lanes < num_taps) lanes *= 2;
  const int64_t per_block = int64_t{kThreads} / lanes * kVoxelsPerGroup;
  return launch(find_neighbours, (num_voxels + per_block - 1) / per_block, kThreads, 0, stream,
                coords, num_voxels, grid, table, num_taps, lanes, neighbours);
}

}  // namespace cuda
}  // namespace perception3d
