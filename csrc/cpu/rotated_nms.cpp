#include "cpu/rotated_nms.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/parallel.h"
#include "common/rotated_box.h"
#include "cpu/footprints.h"

namespace perception3d {
namespace {

constexpr int64_t kCandidates = 256;         // tested against what is kept so far, in parallel
constexpr int64_t kTestsPerWorker = 131072;  // circle tests that are worth a thread
constexpr int64_t kBatch = 16;               // overlaps computed before one is looked at

struct Ranked {
  uint64_t key;
  int64_t row;
};

// A number that falls where the score rises.
uint64_t descending_key(double score) {
  if (score != score) score = -std::numeric_limits<double>::infinity();
  score += 0.0;  // -0 and 0 are equal
  uint64_t bits;
  std::memcpy(&bits, &score, sizeof(bits));
  const uint64_t sign = uint64_t{1} << 63;
  return bits & sign ? bits : ~(bits | sign);
}

// Stable radix sort, a byte at a time; bytes that are equal everywhere, such as
// the last bytes of float32 scores, cost no pass.
void sort_by_key(std::vector<Ranked> &rows) {
  constexpr int kBytes = sizeof(uint64_t);
  std::vector<int64_t> counts(kBytes * 256);
  for (const Ranked &row : rows) {
    for (int byte = 0; byte < kBytes; ++byte) ++counts[byte * 256 + (row.key >> 8 * byte & 255)];
  }
  std::vector<Ranked> sorted(rows.size());
  for (int byte = 0; byte < kBytes && !rows.empty(); ++byte) {
    int64_t *slot = counts.data() + byte * 256;
    if (slot[rows[0].key >> 8 * byte & 255] == static_cast<int64_t>(rows.size())) continue;
    int64_t before = 0;
    for (int value = 0; value < 256; ++value) {
      const int64_t count = slot[value];
      slot[value] = before;
      before += count;
    }
    for (const Ranked &row : rows) sorted[slot[row.key >> 8 * byte & 255]++] = row;
    rows.swap(sorted);
  }
}

P3D_CLONES int64_t count_within(const double *x, const double *y, int64_t count, double center_x,
                                double center_y, double squared_distance) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double dx = x[i] - center_x, dy = y[i] - center_y;
    total += dx * dx + dy * dy <= squared_distance;
  }
  return total;
}

bool any_within(const double *x, const double *y, int64_t count, double center_x, double center_y,
                double squared_distance) {
  constexpr int64_t kAtOnce = 128;
  for (int64_t at = 0; at < count; at += kAtOnce) {
    const int64_t some = std::min(kAtOnce, count - at);
    if (count_within(x + at, y + at, some, center_x, center_y, squared_distance) > 0) return true;
  }
  return false;
}

// Greedy suppression, lazily: candidates meet only what has been kept.
// is_hit(i, begin, end): whether candidate i is suppressed by any of the kept
// ones begin..end-1; keep(i): append it to them.  Returns nothing: `keep` has
// the result.
template <typename IsHit, typename Keep>
void suppress(int64_t num_candidates, int64_t post_max, int threads, const IsHit &is_hit,
              const Keep &keep) {
  int64_t num_kept = 0;
  bool hit[kCandidates];
  for (int64_t begin = 0; begin < num_candidates && num_kept != post_max; begin += kCandidates) {
    const int64_t count = std::min(kCandidates, num_candidates - begin);
    const int64_t kept_before = num_kept;
    const int workers = worker_count(threads, count * kept_before, kTestsPerWorker);
    for_each_dynamic(workers, count, 8,
                     [&](int64_t i) { hit[i] = is_hit(begin + i, int64_t{0}, kept_before); });
    for (int64_t i = 0; i < count && num_kept != post_max; ++i) {
      if (hit[i] || is_hit(begin + i, kept_before, num_kept)) continue;
      keep(begin + i);
      ++num_kept;
    }
  }
}

}  // namespace

template <typename T>
std::vector<int64_t> order_by_score(const T *scores, int64_t count) {
  std::vector<Ranked> rows(count);
  for (int64_t row = 0; row < count; ++row) rows[row] = {descending_key(scores[row]), row};
  sort_by_key(rows);
  std::vector<int64_t> order(count);
  for (int64_t i = 0; i < count; ++i) order[i] = rows[i].row;
  return order;
}

template <typename T>
std::vector<int64_t> suppress_boxes(const T *boxes, const std::vector<int64_t> &order,
                                    double iou_threshold, int64_t pre_max, int64_t post_max,
                                    int threads) {
  const int64_t num_rows = static_cast<int64_t>(order.size());
  const int64_t num_candidates = pre_max == kNoLimit ? num_rows : std::min(pre_max, num_rows);
  std::vector<RotatedBox> candidates(num_candidates);
  for (int64_t i = 0; i < num_candidates; ++i) {
    candidates[i] = make_rotated_box(boxes + order[i] * 7);
  }
  Footprints footprints;
  std::vector<int64_t> kept;
  std::vector<double> area_of_kept;
  const auto is_hit = [&](int64_t i, int64_t begin, int64_t end) {
    const RotatedBox &box = candidates[i];
    const double box_area = box.area();
    return visit_near(footprints, box, begin, end, kBatch, [&](int64_t other, double shared) {
      return ratio_or_zero(shared, box_area + area_of_kept[other] - shared) > iou_threshold;
    });
  };
  suppress(num_candidates, post_max, threads, is_hit, [&](int64_t i) {
    kept.push_back(order[i]);
    area_of_kept.push_back(candidates[i].area());
    footprints.add(candidates[i]);
  });
  return kept;
}

template <typename T>
std::vector<int64_t> suppress_centers(const T *centers, const std::vector<int64_t> &order,
                                      double squared_distance, int64_t post_max, int threads) {
  std::vector<int64_t> kept;
  std::vector<double> kept_x, kept_y;
  const auto is_hit = [&](int64_t i, int64_t begin, int64_t end) {
    const T *center = centers + order[i] * 2;
    return any_within(kept_x.data() + begin, kept_y.data() + begin, end - begin, center[0],
                      center[1], squared_distance);
  };
  suppress(static_cast<int64_t>(order.size()), post_max, threads, is_hit, [&](int64_t i) {
    const T *center = centers + order[i] * 2;
    kept.push_back(order[i]);
    kept_x.push_back(center[0]);
    kept_y.push_back(center[1]);
  });
  return kept;
}

template std::vector<int64_t> order_by_score(const float *, int64_t);
template std::vector<int64_t> order_by_score(const double *, int64_t);
template std::vector<int64_t> suppress_boxes(const float *, const std::vector<int64_t> &, double,
                                             int64_t, int64_t, int);
template std::vector<int64_t> suppress_boxes(const double *, const std::vector<int64_t> &, double,
                                             int64_t, int64_t, int);
template std::vector<int64_t> suppress_centers(const float *, const std::vector<int64_t> &, double,
                                               int64_t, int);
template std::vector<int64_t> suppress_centers(const double *, const std::vector<int64_t> &, double,
                                               int64_t, int);

}  // namespace perception3d
