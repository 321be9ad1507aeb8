#include "cpu/sparse_index.h"

#include <algorithm>

namespace perception3d {
namespace {

// Outputs low .. high along one axis that see a cell; the one at o sees it at tap start - o *
// stride.
struct Span {
  int64_t low, high, start;

  Span(const StridedGrid& grid, int64_t outputs, int axis, int64_t cell) {
    const int64_t stride = grid.stride[axis];
    start = cell + grid.padding[axis];
    high = std::min(start / stride, outputs - 1);
    const int64_t over = start - (grid.kernel[axis] - 1);
    low = over <= 0 ? 0 : (over + stride - 1) / stride;
  }
};

struct Cell {
  Span z, y, x;

  Cell(const StridedGrid& grid, const int64_t* shape, const int32_t* cell)
      : z(grid, shape[0], 0, cell[1]),
        y(grid, shape[1], 1, cell[2]),
        x(grid, shape[2], 2, cell[3]) {}
};

bool contains(const StridedGrid& grid, const int32_t* cell) {
  const int64_t* shape = grid.spatial_shape;
  return cell[0] >= 0 && cell[0] < grid.batch_size && cell[1] >= 0 && cell[1] < shape[0] &&
         cell[2] >= 0 && cell[2] < shape[1] && cell[3] >= 0 && cell[3] < shape[2];
}

}  // namespace

SparseIndex::SparseIndex(const int32_t* coords, int64_t num_voxels, const StridedGrid& grid)
    : coords_(coords),
      num_voxels_(num_voxels),
      grid_(grid),
      shape_{grid.output_shape(0), grid.output_shape(1), grid.output_shape(2)},
      line_blocks_((shape_[2] + kLineCells - 1) / kLineCells),
      lines_(num_voxels) {
  collect();
  if (fault_.row < 0) rank();
}

void SparseIndex::collect() {
  touched_.reserve(num_voxels_);
  for (int64_t row = 0; row < num_voxels_; ++row) {
    const int32_t* cell = coords_ + 4 * row;
    if (!contains(grid_, cell)) {
      fault_ = {row, -1};
      return;
    }
    const Cell seen(grid_, shape_, cell);
    if (seen.x.low > seen.x.high) continue;
    for (int64_t z = seen.z.low; z <= seen.z.high; ++z) {
      for (int64_t y = seen.y.low; y <= seen.y.high; ++y) {
        const int64_t key = ((cell[0] * shape_[0] + z) * shape_[1] + y) * line_blocks_;
        for (int64_t x = seen.x.low; x <= seen.x.high;) {
          const int64_t block = x / kLineCells;
          const int32_t number = lines_.insert(key + block, static_cast<int32_t>(row));
          touched_.push_back(number);
          const int64_t end = std::min(seen.x.high + 1, (block + 1) * kLineCells);
          for (; x < end; ++x) lines_[number].bits |= uint64_t{1} << (x % kLineCells);
        }
      }
    }
  }
}

void SparseIndex::rank() {
  sorted_.resize(lines_.size() - 1);
  for (size_t i = 0; i < sorted_.size(); ++i) sorted_[i] = static_cast<int32_t>(i + 1);
  std::sort(sorted_.begin(), sorted_.end(),
            [&](int32_t a, int32_t b) { return lines_[a].key < lines_[b].key; });
  for (const int32_t number : sorted_) {
    lines_[number].first = static_cast<int32_t>(num_outputs_);
    num_outputs_ += __builtin_popcountll(lines_[number].bits);
  }
}

StridedFault SparseIndex::write(int32_t* out_coords, int32_t* inputs, int32_t* outputs) const {
  for (const int32_t number : sorted_) {
    const CellLine& line = lines_[number];
    const int64_t row = line.key / line_blocks_;  // of cells along x
    int32_t* target = out_coords + 4 * int64_t{line.first};
    for (uint64_t bits = line.bits; bits != 0; bits &= bits - 1, target += 4) {
      target[0] = static_cast<int32_t>(row / shape_[1] / shape_[0]);
      target[1] = static_cast<int32_t>(row / shape_[1] % shape_[0]);
      target[2] = static_cast<int32_t>(row % shape_[1]);
      target[3] =
          static_cast<int32_t>(line.key % line_blocks_ * kLineCells + __builtin_ctzll(bits));
    }
  }
  const int64_t taps = grid_.num_taps();
  std::fill_n(inputs, num_outputs_ * taps, -1);
  std::fill_n(outputs, num_voxels_ * taps, -1);
  const int32_t* number = touched_.data();
  for (int64_t row = 0; row < num_voxels_; ++row) {
    const Cell seen(grid_, shape_, coords_ + 4 * row);
    if (seen.x.low > seen.x.high) continue;
    for (int64_t z = seen.z.low; z <= seen.z.high; ++z) {
      const int64_t tap_z = (seen.z.start - z * grid_.stride[0]) * grid_.kernel[1];
      for (int64_t y = seen.y.low; y <= seen.y.high; ++y) {
        const int64_t tap_y = (tap_z + seen.y.start - y * grid_.stride[1]) * grid_.kernel[2];
        for (int64_t x = seen.x.low; x <= seen.x.high;) {
          const CellLine& line = lines_[*number++];
          const int64_t end = std::min(seen.x.high + 1, (x / kLineCells + 1) * kLineCells);
          const uint64_t below = line.bits & ((uint64_t{1} << (x % kLineCells)) - 1);
          int64_t found = line.first + __builtin_popcountll(below);  // the span is full of outputs
          for (; x < end; ++x, ++found) {
            const int64_t tap = tap_y + seen.x.start - x * grid_.stride[2];
            int32_t& input = inputs[found * taps + tap];
            if (input >= 0) return {row, input};
            input = static_cast<int32_t>(row);
            outputs[row * taps + tap] = static_cast<int32_t>(found);
          }
        }
      }
    }
  }
  return {-1, -1};
}

}  // namespace perception3d
