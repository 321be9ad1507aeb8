// Footprints of many boxes, one array per number, for tests of one box against
// all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/rotated_box.h"

namespace perception3d {

constexpr int64_t kFootprintsPerTest = 64;

class Footprints {
 public:
  int64_t size() const { return static_cast<int64_t>(x_.size()); }
  void reserve(int64_t count);
  void add(const RotatedBox &box);

  // Says for up to 64 footprints from `begin` on whether their circles and that
  // of the box leave room for an overlap: bit i belongs to footprint begin + i.
  // Unknown ones, on either side, are near.
  uint64_t find_near(const RotatedBox &box, int64_t begin, int64_t end) const;

  // Fills areas[i] with what the box, as a of overlap_area, shares with the
  // footprint rows[i], for at most 64 rows.
  void overlap_with(const Footprint &box, const int64_t *rows, int64_t count, double *areas) const;

 private:
  std::vector<double> x_, y_, radius_, half_length_, half_width_, cos_, sin_;
};

// Calls use(row, area) for all footprints begin..end-1 near the box, in order,
// until it returns true; says whether it did.  Up to `batch` <= 64 areas are
// computed at a time.
template <typename Use>
bool visit_near(const Footprints &footprints, const RotatedBox &box, int64_t begin, int64_t end,
                int64_t batch, const Use &use) {
  int64_t rows[2 * kFootprintsPerTest];
  double areas[kFootprintsPerTest];
  int64_t waiting = 0;
  for (int64_t at = begin; at < end; at += kFootprintsPerTest) {
    uint64_t near = footprints.find_near(box, at, end);
    for (; near != 0; near &= near - 1) rows[waiting++] = at + __builtin_ctzll(near);
    const bool last = at + kFootprintsPerTest >= end;
    int64_t done = 0;
    while (waiting - done >= batch || (last && done < waiting)) {
      const int64_t count = waiting - done < batch ? waiting - done : batch;
      footprints.overlap_with(box, rows + done, count, areas);
      for (int64_t i = 0; i < count; ++i) {
        if (use(rows[done + i], areas[i])) return true;
      }
      done += count;
    }
    for (int64_t i = done; i < waiting; ++i) rows[i - done] = rows[i];
    waiting -= done;
  }
  return false;
}

}  // namespace perception3d
