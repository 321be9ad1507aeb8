#include "cpu/voxelize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kPointsPerWorker = 32768;
constexpr int64_t kVoxelsPerWorker = 32768;
constexpr int64_t kBlock = 256;  // points whose coordinates are first laid side by side

struct Block {
  float x[kBlock], y[kBlock], z[kBlock];
};

// True where a cell index c = (p - lower) / size would be in [0, cells); NaN and inf are not.
inline bool inside(float c, float cells) { return c >= 0.0f && c < cells; }

// Keys of `count` points of one frame, whose cells start at key `base`; Cell is an integer type
// that can count the cells of a frame.  Truncation equals floor because only c >= 0 is kept.
template <typename Cell>
P3D_INLINE void keys_of_block(const Block& block, int64_t count, const VoxelGrid& grid,
                              int64_t base, int64_t* key) {
  const Cell ny = static_cast<Cell>(grid.cells[1]);
  const Cell nz = static_cast<Cell>(grid.cells[2]);
  const float x_cells = static_cast<float>(grid.cells[0]);
  const float y_cells = static_cast<float>(grid.cells[1]);
  const float z_cells = static_cast<float>(grid.cells[2]);
  for (int64_t i = 0; i < count; ++i) {
    const float x = (block.x[i] - grid.lower[0]) / grid.voxel_size[0];
    const float y = (block.y[i] - grid.lower[1]) / grid.voxel_size[1];
    const float z = (block.z[i] - grid.lower[2]) / grid.voxel_size[2];
    const bool keep = inside(x, x_cells) & inside(y, y_cells) & inside(z, z_cells);
    const int32_t ix = static_cast<int32_t>(keep ? x : 0.0f);
    const int32_t iy = static_cast<int32_t>(keep ? y : 0.0f);
    const int32_t iz = static_cast<int32_t>(keep ? z : 0.0f);
    const Cell cell = (static_cast<Cell>(ix) * ny + iy) * nz + iz;
    key[i] = keep ? base + cell : -1;
  }
}

P3D_CLONES void keys_of_small_grid(const Block& block, int64_t count, const VoxelGrid& grid,
                                   int64_t base, int64_t* key) {
  keys_of_block<int32_t>(block, count, grid, base, key);
}

P3D_CLONES void keys_of_large_grid(const Block& block, int64_t count, const VoxelGrid& grid,
                                   int64_t base, int64_t* key) {
  keys_of_block<int64_t>(block, count, grid, base, key);
}

// Lays out x, y, z of `count` points.  Without check_z every finite z becomes the lower bound.
void load_block(const float* points, int64_t count, int64_t columns, const VoxelGrid& grid,
                Block& block) {
  for (int64_t i = 0; i < count; ++i) {
    block.x[i] = points[i * columns];
    block.y[i] = points[i * columns + 1];
    block.z[i] = points[i * columns + 2];
  }
  if (grid.check_z) return;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(block.z[i])) block.z[i] = grid.lower[2];
  }
}

// First frame number outside 0..batch_size-1, or -1.
int64_t find_bad_frame(const int32_t* frame, int64_t begin, int64_t end, int64_t batch_size) {
  for (int64_t i = begin; i < end; ++i) {
    if (frame[i] < 0 || frame[i] >= batch_size) return i;
  }
  return -1;
}

bool all_equal(const int32_t* frame, int64_t count) {
  int32_t difference = 0;
  for (int64_t i = 0; i < count; ++i) difference |= frame[i] ^ frame[0];
  return difference == 0;
}

}  // namespace

int64_t voxel_keys(const float* points, int64_t num_points, int64_t columns,
                   const int32_t* frame_of_point, const VoxelGrid& grid, int64_t* key_of_point,
                   int threads) {
  const int64_t frame_cells = grid.cells[0] * grid.cells[1] * grid.cells[2];
  const auto keys_of = frame_cells <= INT32_MAX ? keys_of_small_grid : keys_of_large_grid;
  const int workers = worker_count(threads, num_points, kPointsPerWorker);
  std::vector<int64_t> bad_frame(workers, -1);
  for_each_block(workers, num_points, [&](int worker, int64_t begin, int64_t end) {
    bad_frame[worker] = find_bad_frame(frame_of_point, begin, end, grid.batch_size);
    if (bad_frame[worker] >= 0) return;
    Block block;
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t count = std::min(kBlock, end - first);
      load_block(points + first * columns, count, columns, grid, block);
      // Points mostly come frame by frame; only mixed blocks pay for a product per point.
      const int32_t* frame = frame_of_point + first;
      int64_t* key = key_of_point + first;
      const bool one_frame = all_equal(frame, count);
      keys_of(block, count, grid, one_frame ? frame[0] * frame_cells : 0, key);
      if (one_frame) continue;
      for (int64_t i = 0; i < count; ++i) {
        if (key[i] >= 0) key[i] += frame[i] * frame_cells;
      }
    }
  });
  for (const int64_t point : bad_frame) {
    if (point >= 0) return point;
  }
  return -1;
}

void coords_of_keys(const int64_t* keys, int64_t num_keys, const VoxelGrid& grid, int32_t* coords,
                    int threads) {
  const int workers = worker_count(threads, num_keys, kVoxelsPerWorker);
  for_each_block(workers, num_keys, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = keys[i] / grid.cells[2];
      const int64_t line = column / grid.cells[1];
      coords[4 * i] = static_cast<int32_t>(line / grid.cells[0]);
      coords[4 * i + 1] = static_cast<int32_t>(keys[i] % grid.cells[2]);
      coords[4 * i + 2] = static_cast<int32_t>(column % grid.cells[1]);
      coords[4 * i + 3] = static_cast<int32_t>(line % grid.cells[0]);
    }
  });
}

}  // namespace perception3d
