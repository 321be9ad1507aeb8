#include "cpu/subm_index.h"

#include <algorithm>
#include <vector>

#include "cpu/cell_lines.h"

namespace perception3d {
namespace {

constexpr int64_t kEntriesPerWorker = 131072;
// A window of so many cells touches two lines at most.  Of kMostTaps taps some axis has no more.
constexpr int64_t kLongestWindow = kLineCells - 1;
static_assert(kMostTaps < (kLongestWindow + 1) * (kLongestWindow + 1) * (kLongestWindow + 1));

// How cells are cut into lines: along the axis on which the kernel is longest, so that one look-up
// serves as many taps as possible.
struct Layout {
  SubmGrid grid;
  int line_axis;        // 0, 1, 2 for z, y, x
  int across[2];        // the other two axes, slower first
  int64_t line_blocks;  // lines per row of cells

  explicit Layout(const SubmGrid& given) : grid(given), line_axis(-1) {
    for (int axis = 2; axis >= 0; --axis) {
      const int64_t size = grid.kernel[axis];
      if (size > kLongestWindow) continue;
      if (line_axis < 0 || size > grid.kernel[line_axis]) line_axis = axis;
    }
    across[0] = line_axis == 0 ? 1 : 0;
    across[1] = line_axis == 2 ? 1 : 2;
    line_blocks = (grid.spatial_shape[line_axis] + kLineCells - 1) / kLineCells;
  }

  P3D_INLINE int64_t key(int64_t frame, int64_t slow, int64_t fast, int64_t block) const {
    const int64_t* shape = grid.spatial_shape;
    return ((frame * shape[across[0]] + slow) * shape[across[1]] + fast) * line_blocks + block;
  }

  P3D_INLINE bool contains(const int32_t* cell) const {
    const int64_t* shape = grid.spatial_shape;
    return cell[0] >= 0 && cell[0] < grid.batch_size && cell[1] >= 0 && cell[1] < shape[0] &&
           cell[2] >= 0 && cell[2] < shape[1] && cell[3] >= 0 && cell[3] < shape[2];
  }

  P3D_INLINE int64_t tap_stride(int axis) const {
    return axis == 2 ? 1 : axis == 1 ? grid.kernel[2] : grid.kernel[1] * grid.kernel[2];
  }
};

// The voxels as lines, and their rows by rank.
struct Voxels {
  CellLines lines;
  std::vector<int32_t> line_of_row;
  std::vector<int32_t> row_of_rank;  // one more than there are voxels, so that rank N can be read

  explicit Voxels(int64_t count) : lines(count), line_of_row(count), row_of_rank(count + 1) {}
};

// The voxel before `row` in the same cell.
int64_t first_in_cell(const int32_t* coords, int64_t row) {
  for (int64_t other = 0; other < row; ++other) {
    if (std::equal(coords + 4 * other, coords + 4 * other + 4, coords + 4 * row)) return other;
  }
  return -1;
}

P3D_CLONES CoordsFault collect(const int32_t* coords, int64_t count, const Layout& layout,
                               Voxels& voxels) {
  const int line = 1 + layout.line_axis, slow = 1 + layout.across[0], fast = 1 + layout.across[1];
  for (int64_t row = 0; row < count; ++row) {
    const int32_t* cell = coords + 4 * row;
    if (!layout.contains(cell)) return {row, -1};
    const int64_t key = layout.key(cell[0], cell[slow], cell[fast], cell[line] / kLineCells);
    const int32_t number = voxels.lines.insert(key, static_cast<int32_t>(row));
    const uint64_t bit = uint64_t{1} << (cell[line] % kLineCells);
    uint64_t& bits = voxels.lines[number].bits;
    if (bits & bit) return {row, first_in_cell(coords, row)};
    bits |= bit;
    voxels.line_of_row[row] = number;
  }
  return {-1, -1};
}

P3D_CLONES void rank(const int32_t* coords, int64_t count, const Layout& layout, Voxels& voxels) {
  int32_t first = 0;
  for (int64_t number = 1; number < voxels.lines.size(); ++number) {
    CellLine& line = voxels.lines[static_cast<int32_t>(number)];
    line.first = first;
    first += __builtin_popcountll(line.bits);
  }
  for (int64_t row = 0; row < count; ++row) {
    const CellLine& line = voxels.lines[voxels.line_of_row[row]];
    const int place = coords[4 * row + 1 + layout.line_axis] % kLineCells;
    const uint64_t before = line.bits & ((uint64_t{1} << place) - 1);
    voxels.row_of_rank[line.first + __builtin_popcountll(before)] = static_cast<int32_t>(row);
  }
}

// One of the taps across lines: `ahead` is the distance of keys, `tap` its first tap along lines.
struct Across {
  int64_t slow, fast, ahead, tap;
};

std::vector<Across> taps_across(const Layout& layout) {
  const int64_t* kernel = layout.grid.kernel;
  const int slow = layout.across[0], fast = layout.across[1];
  std::vector<Across> taps;
  for (int64_t i = 0; i < kernel[slow]; ++i) {
    for (int64_t j = 0; j < kernel[fast]; ++j) {
      const int64_t a = i - kernel[slow] / 2, b = j - kernel[fast] / 2;
      taps.push_back({a, b, layout.key(0, a, b, 0),
                      i * layout.tap_stride(slow) + j * layout.tap_stride(fast)});
    }
  }
  return taps;
}

P3D_INLINE bool is_inside(const Layout& layout, const Across& tap, const int32_t* cell) {
  const int slow = layout.across[0], fast = layout.across[1];
  const int64_t a = cell[1 + slow] + tap.slow, b = cell[1 + fast] + tap.fast;
  return a >= 0 && a < layout.grid.spatial_shape[slow] && b >= 0 &&
         b < layout.grid.spatial_shape[fast];
}

// beside (lines, taps across): number of the line at each tap, 0 where none is.  Filled with 0
// before.  What lies at a tap of a line has that line at the opposite tap, so half the taps do.
P3D_CLONES void find_beside(const int32_t* coords, const Layout& layout, const CellLines& lines,
                            const std::vector<Across>& taps, int64_t begin, int64_t end,
                            int32_t* beside) {
  const int64_t count = static_cast<int64_t>(taps.size());
  for (int64_t number = begin; number < end; ++number) {
    const CellLine& line = lines[static_cast<int32_t>(number)];
    const int32_t* cell = coords + 4 * int64_t{line.row};
    for (int64_t tap = 0; tap < count / 2; ++tap) {
      if (!is_inside(layout, taps[tap], cell)) continue;
      const int32_t found = lines.find(line.key + taps[tap].ahead);
      if (found == 0) continue;
      beside[number * count + tap] = found;
      beside[found * count + count - 1 - tap] = static_cast<int32_t>(number);
    }
    beside[number * count + count / 2] = static_cast<int32_t>(number);
  }
}

// Writes the rows of cells from .. from + count - 1 of a line, -1 where none is.
P3D_INLINE void write_part(const Voxels& voxels, int32_t number, int from, int count,
                           int64_t stride, int32_t* target) {
  const CellLine& line = voxels.lines[number];
  const uint64_t bits = line.bits >> from;
  const uint64_t before = line.bits & ((uint64_t{1} << from) - 1);
  const int32_t* row = voxels.row_of_rank.data() + line.first + __builtin_popcountll(before);
  for (int i = 0; i < count; ++i) {
    const int32_t occupied = bits >> i & 1;
    target[i * stride] = *row | (occupied - 1);  // no branch: nobody could predict it
    row += occupied;
  }
}

// Writes the table's row of a voxel near the end of its line, whose window reaches into others.
void write_across_end(const Layout& layout, const Voxels& voxels, const std::vector<Across>& taps,
                      const int32_t* beside, const int32_t* cell, int32_t* target) {
  const int length = static_cast<int>(layout.grid.kernel[layout.line_axis]);
  const int64_t stride = layout.tap_stride(layout.line_axis);
  const int64_t block = cell[1 + layout.line_axis] / kLineCells;
  const int from = cell[1 + layout.line_axis] % kLineCells - length / 2;
  const int outside = from < 0 ? -from : from + length - kLineCells;
  const int64_t next = from < 0 ? block - 1 : block + 1;
  const int64_t next_key =
      layout.key(cell[0], cell[1 + layout.across[0]], cell[1 + layout.across[1]], next);
  for (size_t i = 0; i < taps.size(); ++i) {
    const bool exists = next >= 0 && next < layout.line_blocks && is_inside(layout, taps[i], cell);
    const int32_t other = exists ? voxels.lines.find(next_key + taps[i].ahead) : 0;
    int32_t* first = target + taps[i].tap;
    if (from < 0) {
      write_part(voxels, other, kLineCells - outside, outside, stride, first);
      write_part(voxels, beside[i], 0, length - outside, stride, first + outside * stride);
    } else {
      write_part(voxels, beside[i], from, length - outside, stride, first);
      write_part(voxels, other, 0, outside, stride, first + (length - outside) * stride);
    }
  }
}

// Writes rows begin .. end - 1 of the table.  kLength: taps along lines, 0: as many as the layout
// says.
template <int kLength>
P3D_INLINE void write_rows_of(const int32_t* coords, const Layout& layout, const Voxels& voxels,
                              const std::vector<Across>& taps, const int32_t* beside, int64_t begin,
                              int64_t end, int32_t* neighbours) {
  const int64_t across = static_cast<int64_t>(taps.size());
  const int length = kLength > 0 ? kLength : static_cast<int>(layout.grid.kernel[layout.line_axis]);
  const int64_t stride = layout.tap_stride(layout.line_axis);
  for (int64_t row = begin; row < end; ++row) {
    const int32_t* cell = coords + 4 * row;
    const int32_t* at = beside + voxels.line_of_row[row] * across;
    int32_t* target = neighbours + row * across * length;
    const int from = cell[1 + layout.line_axis] % kLineCells - length / 2;
    if (from < 0 || from + length > kLineCells) {
      write_across_end(layout, voxels, taps, at, cell, target);
      continue;
    }
    for (int64_t i = 0; i < across; ++i) {
      write_part(voxels, at[i], from, length, stride, target + taps[i].tap);
    }
  }
}

P3D_CLONES void write_rows(const int32_t* coords, const Layout& layout, const Voxels& voxels,
                           const std::vector<Across>& taps, const int32_t* beside, int64_t begin,
                           int64_t end, int32_t* neighbours) {
  if (layout.grid.kernel[layout.line_axis] == 3) {
    write_rows_of<3>(coords, layout, voxels, taps, beside, begin, end, neighbours);
  } else {
    write_rows_of<0>(coords, layout, voxels, taps, beside, begin, end, neighbours);
  }
}

}  // namespace

CoordsFault subm_index(const int32_t* coords, int64_t num_voxels, const SubmGrid& grid,
                       int32_t* neighbours, int threads) {
  const Layout layout(grid);
  Voxels voxels(num_voxels);
  const CoordsFault fault = collect(coords, num_voxels, layout, voxels);
  if (fault.row >= 0) return fault;
  rank(coords, num_voxels, layout, voxels);

  const std::vector<Across> taps = taps_across(layout);
  const int workers = worker_count(threads, num_voxels * grid.num_taps(), kEntriesPerWorker);
  std::vector<int32_t> beside(voxels.lines.size() * taps.size());
  for_each_block(workers, voxels.lines.size() - 1, [&](int, int64_t begin, int64_t end) {
    find_beside(coords, layout, voxels.lines, taps, 1 + begin, 1 + end, beside.data());
  });
  for_each_block(workers, num_voxels, [&](int, int64_t begin, int64_t end) {
    write_rows(coords, layout, voxels, taps, beside.data(), begin, end, neighbours);
  });
  return fault;
}

}  // namespace perception3d
