#include "cpu/points_in_boxes.h"

#include <algorithm>
#include <cmath>

#include "common/box_container.h"
#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kPointsPerWorker = 8192;
constexpr int64_t kMostCellsPerAxis = 256;

struct Container : BoxContainer {
  int64_t box;
};

template <typename T>
std::vector<Container> make_containers(const T *boxes, int64_t num_boxes, double margin) {
  std::vector<Container> containers;
  containers.reserve(num_boxes);
  for (int64_t box = 0; box < num_boxes; ++box) {
    const BoxContainer container = make_container(boxes + box * 7, margin);
    if (!container.is_empty()) containers.push_back({container, box});
  }
  return containers;
}

// Cells over the bounds of all boxes, each with the boxes whose bounds touch it:
// most points meet an empty cell.
class CellGrid {
 public:
  CellGrid(const std::vector<Container> &containers, int64_t budget) {
    for (const Container &c : containers) {
      lower_x_ = std::min(lower_x_, c.lower_x), upper_x_ = std::max(upper_x_, c.upper_x);
      lower_y_ = std::min(lower_y_, c.lower_y), upper_y_ = std::max(upper_y_, c.upper_y);
    }
    do {
      cells_ /= 2;
      per_x_ = cells_per_metre(lower_x_, upper_x_);
      per_y_ = cells_per_metre(lower_y_, upper_y_);
    } while (cells_ > 1 && cells_ * cells_ + count_entries(containers) > budget);
    fill(containers);
  }

  // Range of entries of the cell at (x, y); empty outside the grid and for NaN.
  template <typename T>
  void find(T x, T y, const int32_t *&begin, const int32_t *&end) const {
    begin = end = nullptr;
    if (!(x >= lower_x_ && x <= upper_x_ && y >= lower_y_ && y <= upper_y_)) return;
    const int64_t cell = row_of(y) * cells_ + column_of(x);
    begin = entries_.data() + offsets_[cell];
    end = entries_.data() + offsets_[cell + 1];
  }

 private:
  double cells_per_metre(double lower, double upper) const {
    const double extent = upper - lower;
    return extent > 0 && std::isfinite(extent) ? cells_ / extent : 0;
  }
  int64_t column_of(double x) const {
    return per_x_ > 0 ? std::min(static_cast<int64_t>((x - lower_x_) * per_x_), cells_ - 1) : 0;
  }
  int64_t row_of(double y) const {
    return per_y_ > 0 ? std::min(static_cast<int64_t>((y - lower_y_) * per_y_), cells_ - 1) : 0;
  }
  template <typename Visit>
  void for_cells(const Container &c, const Visit &visit) const {
    for (int64_t row = row_of(c.lower_y); row <= row_of(c.upper_y); ++row) {
      for (int64_t column = column_of(c.lower_x); column <= column_of(c.upper_x); ++column) {
        visit(row * cells_ + column);
      }
    }
  }
  int64_t count_entries(const std::vector<Container> &containers) const {
    int64_t total = 0;
    for (const Container &c : containers) {
      total += (row_of(c.upper_y) - row_of(c.lower_y) + 1) *
               (column_of(c.upper_x) - column_of(c.lower_x) + 1);
    }
    return total;
  }
  void fill(const std::vector<Container> &containers) {
    offsets_.assign(cells_ * cells_ + 2, 0);
    for (const Container &c : containers) {
      for_cells(c, [&](int64_t cell) { ++offsets_[cell + 2]; });
    }
    for (size_t cell = 2; cell < offsets_.size(); ++cell) offsets_[cell] += offsets_[cell - 1];
    entries_.resize(offsets_.back());
    for (size_t i = 0; i < containers.size(); ++i) {
      for_cells(containers[i],
                [&](int64_t cell) { entries_[offsets_[cell + 1]++] = static_cast<int32_t>(i); });
    }
  }

  double lower_x_ = INFINITY, upper_x_ = -INFINITY, lower_y_ = INFINITY, upper_y_ = -INFINITY;
  double per_x_ = 0, per_y_ = 0;
  int64_t cells_ = 2 * kMostCellsPerAxis;  // per axis
  std::vector<int64_t> offsets_;
  std::vector<int32_t> entries_;
};

struct Pair {
  int64_t box, point;
};

// Appends the pairs of a range of points, by point, then box.
template <bool kOpen, typename T>
void find_pairs(const T *points, int64_t begin, int64_t end, int64_t num_columns,
                const std::vector<Container> &containers, const CellGrid &grid,
                std::vector<Pair> &pairs) {
  for (int64_t i = begin; i < end; ++i) {
    const T *point = points + i * num_columns;
    const int32_t *entry, *last;
    grid.find(point[0], point[1], entry, last);
    for (; entry != last; ++entry) {
      const Container &container = containers[*entry];
      if (container.template contains<kOpen>(point[0], point[1], point[2]))
        pairs.push_back({container.box, i});
    }
  }
}

// Stable counting sort by box; the workers' points follow each other.
BoxMembers sort_by_box(const std::vector<std::vector<Pair>> &pairs_of_worker, int64_t num_boxes) {
  std::vector<int64_t> slots(num_boxes + 1, 0);
  for (const std::vector<Pair> &pairs : pairs_of_worker) {
    for (const Pair &pair : pairs) ++slots[pair.box + 1];
  }
  for (int64_t box = 0; box < num_boxes; ++box) slots[box + 1] += slots[box];
  BoxMembers members;
  members.box_of_member.resize(slots[num_boxes]);
  members.point_of_member.resize(slots[num_boxes]);
  for (const std::vector<Pair> &pairs : pairs_of_worker) {
    for (const Pair &pair : pairs) {
      const int64_t slot = slots[pair.box]++;
      members.box_of_member[slot] = pair.box;
      members.point_of_member[slot] = pair.point;
    }
  }
  return members;
}

}  // namespace

template <typename T>
BoxMembers find_points_in_boxes(const T *points, int64_t num_points, int64_t num_columns,
                                const T *boxes, int64_t num_boxes, double margin, int threads) {
  const std::vector<Container> containers = make_containers(boxes, num_boxes, margin);
  const CellGrid grid(containers, num_points + 1024);
  const int workers = worker_count(threads, num_points, kPointsPerWorker);
  std::vector<std::vector<Pair>> pairs_of_worker(workers);
  for_each_block(workers, num_points, [&](int worker, int64_t begin, int64_t end) {
    std::vector<Pair> pairs;
    if (margin > 0) {
      find_pairs<true>(points, begin, end, num_columns, containers, grid, pairs);
    } else {
      find_pairs<false>(points, begin, end, num_columns, containers, grid, pairs);
    }
    pairs_of_worker[worker] = std::move(pairs);
  });
  return sort_by_box(pairs_of_worker, num_boxes);
}

template BoxMembers find_points_in_boxes(const float *, int64_t, int64_t, const float *, int64_t,
                                         double, int);
template BoxMembers find_points_in_boxes(const double *, int64_t, int64_t, const double *, int64_t,
                                         double, int);

}  // namespace perception3d
