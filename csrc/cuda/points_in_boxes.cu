#include "common/launch.cuh"
#include "cuda/device_sort.h"
#include "cuda/points_in_boxes.h"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;
constexpr int kRounds = static_cast<int>(kPointsPerWarp) / kLanes;
constexpr int kBoxesPerTile = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

int64_t blocks_for(int64_t items) { return (items + kThreads - 1) / kThreads; }

template <typename T>
__global__ void __launch_bounds__(kThreads) prepare_containers(PointsInBoxes<T> work) {
  const int64_t box = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (box < work.num_boxes)
    work.containers[box] = make_container(work.boxes + box * 7, work.margin);
}

struct Point {
  double x, y, z;
};

// A warp has 128 points in its registers and meets a tile of boxes, whose containers lie in shared
// memory: first to count its members of each box, then, by the sums of the counts, to write them.
template <bool kWrite, bool kOpen, typename T>
__global__ void __launch_bounds__(kThreads)
    meet_boxes(PointsInBoxes<T> work, int64_t* box_of_member, int64_t* point_of_member) {
  P3D_SHARED(BoxContainer, tile, kBoxesPerTile);
  const int64_t first_box = static_cast<int64_t>(blockIdx.y) * kBoxesPerTile;
  const int boxes =
      static_cast<int>(min(work.num_boxes - first_box, static_cast<int64_t>(kBoxesPerTile)));
  if (static_cast<int>(threadIdx.x) < boxes) {
    tile[threadIdx.x] = work.containers[first_box + threadIdx.x];
  }
  const int lane = threadIdx.x % kLanes;
  const int64_t num_warps = (work.num_points + kPointsPerWarp - 1) / kPointsPerWarp;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const int64_t first_point = warp * kPointsPerWarp + lane;
  Point points[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int64_t place = first_point + round * kLanes;
    const T* row = work.points + place * work.num_columns;
    const bool there = place < work.num_points;
    points[round] = there ? Point{static_cast<double>(row[0]), static_cast<double>(row[1]),
                                  static_cast<double>(row[2])}
                          : Point{kNotANumber, kNotANumber, kNotANumber};
  }
  __syncthreads();
  if (warp >= num_warps) return;

  for (int number = 0; number < boxes; ++number) {
    const BoxContainer& container = tile[number];
    int64_t* const members = work.members_before + (first_box + number) * num_warps + warp;
    int64_t slot = kWrite ? *members : 0;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const Point& point = points[round];
      const bool member = container.bounds(point.x, point.y) &&
                          container.template contains<kOpen>(point.x, point.y, point.z);
      const unsigned found = __ballot_sync(kAllLanes, member);
      if (kWrite && member) {
        const int64_t at = slot + __popc(found & ((1u << lane) - 1));
        box_of_member[at] = first_box + number;
        point_of_member[at] = first_point + round * kLanes;
      }
      slot += __popc(found);
    }
    if (!kWrite && lane == 0) *members = slot;
  }
}

template <bool kWrite, typename T>
Status meet(const PointsInBoxes<T>& work, int64_t* box_of_member, int64_t* point_of_member,
            Stream stream) {
  const int64_t per_block = kWarps * kPointsPerWarp;
  const Grid grid((work.num_points + per_block - 1) / per_block,
                  (work.num_boxes + kBoxesPerTile - 1) / kBoxesPerTile);
  const auto kernel = work.margin > 0 ? meet_boxes<kWrite, true, T> : meet_boxes<kWrite, false, T>;
  return launch(kernel, grid, kThreads, 0, stream, work, box_of_member, point_of_member);
}

}  // namespace

template <typename T>
Status count_members(const PointsInBoxes<T>& work, Stream stream) {
  const int64_t counts = member_counts(work.num_points, work.num_boxes);
  Status status = fill_bytes(work.members_before + counts - 1, 0, sizeof(int64_t), stream);
  if (status != nullptr || counts == 1) return status;
  status = launch(prepare_containers<T>, blocks_for(work.num_boxes), kThreads, 0, stream, work);
  if (status != nullptr) return status;
  status = meet<false>(work, nullptr, nullptr, stream);
  if (status != nullptr) return status;
  return device_exclusive_sum(work.members_before, work.members_before, counts, work.scratch,
                              work.scratch_bytes, stream);
}

template <typename T>
Status write_members(const PointsInBoxes<T>& work, int64_t* box_of_member, int64_t* point_of_member,
                     Stream stream) {
  return meet<true>(work, box_of_member, point_of_member, stream);
}

#define P3D_INSTANTIATE(T)                                        \
  template Status count_members(const PointsInBoxes<T>&, Stream); \
  template Status write_members(const PointsInBoxes<T>&, int64_t*, int64_t*, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
