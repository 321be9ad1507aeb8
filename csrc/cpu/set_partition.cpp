#include "cpu/set_partition.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int64_t kVoxelsPerWorker = 16384;
constexpr int64_t kWindowsPerTurn = 8;

struct Voxel {
  int32_t x, y, z;
  int64_t row;
};

bool x_major_less(const Voxel& a, const Voxel& b) {
  if (a.x != b.x) return a.x < b.x;
  if (a.y != b.y) return a.y < b.y;
  return a.z < b.z;
}

// The voxels of one window in both orders; memory is kept from window to window.
class WindowSorter {
 public:
  void load(const int32_t* cell_in_window, const int64_t* rows, int64_t count) {
    x_major_.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t* cell = cell_in_window + 3 * rows[i];
      x_major_[i] = {cell[2], cell[1], cell[0], rows[i]};
    }
    // Voxelisation yields rows in this very order, so there is mostly nothing to do.
    if (!std::is_sorted(x_major_.begin(), x_major_.end(), x_major_less)) {
      std::stable_sort(x_major_.begin(), x_major_.end(), x_major_less);
    }
    sort_by_y();
  }

  const std::vector<Voxel>& x_major() const { return x_major_; }
  const std::vector<Voxel>& y_major() const { return y_major_; }

 private:
  // x-major voxels sorted stably by y come out y-major.
  void sort_by_y() {
    const int64_t count = static_cast<int64_t>(x_major_.size());
    y_major_.resize(count);
    int64_t low = x_major_[0].y, high = low;
    for (const Voxel& voxel : x_major_) {
      low = std::min<int64_t>(low, voxel.y);
      high = std::max<int64_t>(high, voxel.y);
    }
    const int64_t lines = high - low + 1;
    if (lines > 4 * count + 64) {  // counters for every line would cost more than a sort
      y_major_ = x_major_;
      std::stable_sort(y_major_.begin(), y_major_.end(),
                       [](const Voxel& a, const Voxel& b) { return a.y < b.y; });
      return;
    }
    next_.assign(lines + 1, 0);
    for (const Voxel& voxel : x_major_) ++next_[voxel.y - low + 1];
    for (int64_t line = 0; line < lines; ++line) next_[line + 1] += next_[line];
    for (const Voxel& voxel : x_major_) y_major_[next_[voxel.y - low]++] = voxel;
  }

  std::vector<Voxel> x_major_, y_major_;
  std::vector<int64_t> next_;
};

// Slot k of the window's `slots` holds the sorted voxel floor(k * count / slots).  Since count <=
// slots the quotient grows by at most one per slot, which a running remainder tells.
void fill_window(const std::vector<Voxel>& sorted, int64_t first_slot, int64_t slots,
                 int64_t* voxel_of_slot, bool* repeated, int64_t* slot_of_voxel, int64_t* member) {
  const int64_t count = static_cast<int64_t>(sorted.size());
  int64_t remainder = slots - count;  // makes slot 0 start voxel 0
  int64_t i = -1;
  for (int64_t slot = first_slot; slot < first_slot + slots; ++slot) {
    remainder += count;
    const bool starts = remainder >= slots;
    if (starts) {
      remainder -= slots;
      slot_of_voxel[sorted[++i].row] = slot;
      member[i] = sorted[i].row;
    }
    voxel_of_slot[slot] = sorted[i].row;
    repeated[slot] = !starts;
  }
}

}  // namespace

void count_sets(const int64_t* offsets, int64_t num_windows, int64_t set_size, int64_t* first_set) {
  first_set[0] = 0;
  for (int64_t window = 0; window < num_windows; ++window) {
    const int64_t count = offsets[window + 1] - offsets[window];
    first_set[window + 1] = first_set[window] + (count + set_size - 1) / set_size;
  }
}

void fill_sets(const int32_t* cell_in_window, const int64_t* order, const int64_t* offsets,
               const int64_t* first_set, int64_t num_voxels, int64_t num_windows, int64_t set_size,
               const SetTables& tables, int threads) {
  const int64_t all_slots = first_set[num_windows] * set_size;
  const int workers = worker_count(threads, num_voxels, kVoxelsPerWorker);
  for_each_dynamic(workers, num_windows, kWindowsPerTurn, [&](int64_t window) {
    static thread_local WindowSorter sorter;
    const int64_t count = offsets[window + 1] - offsets[window];
    if (count == 0) return;
    sorter.load(cell_in_window, order + offsets[window], count);
    const int64_t first_slot = first_set[window] * set_size;
    const int64_t sets = first_set[window + 1] - first_set[window];
    fill_window(sorter.y_major(), first_slot, sets * set_size, tables.voxel_of_slot,
                tables.repeated, tables.slot_of_voxel, tables.member + offsets[window]);
    fill_window(sorter.x_major(), first_slot, sets * set_size, tables.voxel_of_slot + all_slots,
                tables.repeated + all_slots, tables.slot_of_voxel + num_voxels,
                tables.member + num_voxels + offsets[window]);
    // Slot 0 of set j starts the sorted voxel floor(j * count / sets), in both orders.
    for (int64_t j = 0; j < sets; ++j) {
      tables.set_offset[first_set[window] + j] = offsets[window] + j * count / sets;
    }
  });
  tables.set_offset[first_set[num_windows]] = num_voxels;
}

}  // namespace perception3d
