// Greedy suppression in score order: boxes by IoU, centres by distance.
#pragma once

#include <cstdint>
#include <vector>

namespace perception3d {

// For pre_max and post_max below: keep as many as there are.
constexpr int64_t kNoLimit = -1;

// Rows by descending score, equal scores by ascending row; NaN ranks as -inf.
template <typename T>
std::vector<int64_t> order_by_score(const T *scores, int64_t count);

// boxes: rows x, y, z, dx, dy, dz, yaw.  Visits the first pre_max rows of
// `order`; keeps a box unless its BEV IoU with one kept before is above the
// threshold (>= 0), until post_max are kept.  Returns the kept rows in that
// order.  A box whose footprint has a number that is not finite is kept and
// suppresses nothing.
template <typename T>
std::vector<int64_t> suppress_boxes(const T *boxes, const std::vector<int64_t> &order,
                                    double iou_threshold, int64_t pre_max, int64_t post_max,
                                    int threads);

// centers: rows x, y.  The same, by squared distance <= the given one.
template <typename T>
std::vector<int64_t> suppress_centers(const T *centers, const std::vector<int64_t> &order,
                                      double squared_distance, int64_t post_max, int threads);

}  // namespace perception3d
