#include "common/launch.cuh"
#include "cuda/device_sort.h"
#include "cuda/rotated_nms.h"

namespace perception3d {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSweepThreads = 1024;
constexpr int kTile = 64;    // candidates on a side of a tile of pairs: the bits of a word
constexpr int kSplits = 32;  // blocks that share what is kept, for a tile of candidates
constexpr int kParts = kSweepThreads / static_cast<int>(kChunkWords);

int64_t blocks_for(int64_t items) { return (items + kThreads - 1) / kThreads; }

__device__ __forceinline__ int64_t item_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// Numbers that fall where the score rises; -0 and 0 are equal.
__device__ __forceinline__ uint32_t descending_key(float score) {
  const uint32_t sign = 0x80000000u;
  const uint32_t bits = __float_as_uint((score != score ? -INFINITY : score) + 0.0f);
  return bits & sign ? bits : ~(bits | sign);
}

__device__ __forceinline__ uint64_t descending_key(double score) {
  const uint64_t sign = uint64_t{1} << 63;
  const double known = score != score ? -static_cast<double>(INFINITY) : score;
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(known + 0.0));
  return bits & sign ? bits : ~(bits | sign);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) make_keys(Ranking<T> ranking) {
  const int64_t row = item_of_thread();
  if (row >= ranking.count) return;
  ranking.keys[row] = descending_key(ranking.scores[row]);
  ranking.rows[row] = static_cast<int32_t>(row);
}

// What a tile of pairs keeps in shared memory about a candidate.
struct Spot {
  double x, y, radius;
};

// A rule says which pairs are worth a closer look, and what that shows.  The later candidate comes
// first: the overlap of two boxes depends on their order in the last bit.
struct BoxRule {
  const RotatedBox* boxes;
  double threshold;

  __device__ Spot spot(int64_t place) const {
    const RotatedBox& box = boxes[place];
    return {box.x, box.y, box.radius};
  }
  __device__ bool is_near(const Spot& later, const Spot& earlier) const {
    return may_overlap(later.x, later.y, later.radius, earlier.x, earlier.y, earlier.radius);
  }
  __device__ bool is_hit(int64_t later, int64_t earlier) const {
    const RotatedBox a = boxes[later], b = boxes[earlier];
    const double shared = overlap_area(a, b);
    return ratio_or_zero(shared, a.area() + b.area() - shared) > threshold;
  }
};

template <typename T>
struct CenterRule {
  const T* centers;
  const int32_t* order;
  double squared_distance;

  __device__ Spot spot(int64_t place) const {
    const T* center = centers + static_cast<int64_t>(order[place]) * 2;
    return {center[0], center[1], 0.0};
  }
  __device__ bool is_near(const Spot& later, const Spot& earlier) const {
    const double dx = earlier.x - later.x, dy = earlier.y - later.y;
    return dx * dx + dy * dy <= squared_distance;
  }
  __device__ bool is_hit(int64_t, int64_t) const { return true; }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    prepare_candidates(const T* boxes, Suppression work, RotatedBox* prepared) {
  const int64_t place = item_of_thread();
  if (place >= work.num_candidates) return;
  prepared[place] = make_rotated_box(boxes + static_cast<int64_t>(work.order[place]) * 7);
}

// Shared memory of a tile of pairs.
struct Tile {
  Spot* later;     // (kTile)
  Spot* earlier;   // (kTile)
  uint16_t* near;  // (kTile * kTile) pairs earlier * kTile + later that are worth a look
  int* num_near;   // (1)
};

// Calls hit(earlier, later) for the pairs of a tile that suppress, in any order. place_of_later(i),
// place_of_earlier(i): candidates of the tile; is_pair(earlier, later): whether the two are to
// meet.  All threads of the block take part; a barrier comes first and last.
template <typename Rule, typename LaterPlace, typename EarlierPlace, typename IsPair, typename Hit>
__device__ __forceinline__ void visit_hits(const Rule& rule, const Tile& tile, int num_later,
                                           int num_earlier, const LaterPlace& place_of_later,
                                           const EarlierPlace& place_of_earlier,
                                           const IsPair& is_pair, const Hit& hit) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (thread == 0) *tile.num_near = 0;
  if (thread < num_later) tile.later[thread] = rule.spot(place_of_later(thread));
  if (thread >= kTile && thread < kTile + num_earlier) {
    tile.earlier[thread - kTile] = rule.spot(place_of_earlier(thread - kTile));
  }
  __syncthreads();
  for (int pair = thread; pair < kTile * kTile; pair += kThreads) {
    const int earlier = pair / kTile, later = pair % kTile;
    if (earlier < num_earlier && later < num_later && is_pair(earlier, later) &&
        rule.is_near(tile.later[later], tile.earlier[earlier])) {
      tile.near[atomicAdd(tile.num_near, 1)] = static_cast<uint16_t>(pair);
    }
  }
  __syncthreads();
  for (int i = thread; i < *tile.num_near; i += kThreads) {
    const int earlier = tile.near[i] / kTile, later = tile.near[i] % kTile;
    if (rule.is_hit(place_of_later(later), place_of_earlier(earlier))) hit(earlier, later);
  }
  __syncthreads();
}

__device__ __forceinline__ void set_bit(uint32_t* halves, int bit) {
  atomicOr(&halves[bit / 32], 1u << (bit % 32));
}

__device__ __forceinline__ uint64_t joined(const uint32_t* halves) {
  return halves[0] | static_cast<uint64_t>(halves[1]) << 32;
}

// Marks the candidates of a chunk that something kept before suppresses.  Block (x, y): tile x of
// the chunk, every kSplits-th tile of what is kept.
template <typename Rule>
__global__ void __launch_bounds__(kThreads)
    meet_kept(Rule rule, Suppression work, int64_t begin, int64_t count) {
  P3D_SHARED(Spot, later, kTile);
  P3D_SHARED(Spot, earlier, kTile);
  P3D_SHARED(uint16_t, near, kTile* kTile);
  P3D_SHARED(int, num_near, 1);
  P3D_SHARED(uint32_t, gone, 2);
  const Tile tile{later, earlier, near, num_near};
  const int64_t num_kept = *work.num_kept;
  if (num_kept >= work.most_kept) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile;
  const int num_later = static_cast<int>(min(count - first, static_cast<int64_t>(kTile)));
  if (threadIdx.x < 2) gone[threadIdx.x] = 0;
  for (int64_t at = static_cast<int64_t>(blockIdx.y) * kTile; at < num_kept;
       at += kSplits * kTile) {
    const int num_earlier = static_cast<int>(min(num_kept - at, static_cast<int64_t>(kTile)));
    visit_hits(
        rule, tile, num_later, num_earlier, [&](int i) { return begin + first + i; },
        [&](int i) { return static_cast<int64_t>(work.kept[at + i]); },
        [](int, int) { return true; }, [&](int, int later_one) { set_bit(gone, later_one); });
  }
  __syncthreads();
  if (threadIdx.x == 0 && joined(gone) != 0) {
    atomicOr(reinterpret_cast<unsigned long long*>(&work.removed[blockIdx.x]),
             static_cast<unsigned long long>(joined(gone)));
  }
}

// Fills the bit matrix of a chunk, the part right of its diagonal.
template <typename Rule>
__global__ void __launch_bounds__(kThreads)
    meet_each_other(Rule rule, Suppression work, int64_t begin, int64_t count) {
  P3D_SHARED(Spot, later, kTile);
  P3D_SHARED(Spot, earlier, kTile);
  P3D_SHARED(uint16_t, near, kTile* kTile);
  P3D_SHARED(int, num_near, 1);
  P3D_SHARED(uint32_t, bits, 2 * kTile);
  const Tile tile{later, earlier, near, num_near};
  const int64_t row = blockIdx.y, column = blockIdx.x;
  if (column < row || *work.num_kept >= work.most_kept) return;
  const int64_t first_row = row * kTile, first_column = column * kTile;
  const int num_earlier = static_cast<int>(min(count - first_row, static_cast<int64_t>(kTile)));
  const int num_later = static_cast<int>(min(count - first_column, static_cast<int64_t>(kTile)));
  if (threadIdx.x < 2 * kTile) bits[threadIdx.x] = 0;
  visit_hits(
      rule, tile, num_later, num_earlier, [&](int i) { return begin + first_column + i; },
      [&](int i) { return begin + first_row + i; },
      [&](int one, int other) { return row < column || one < other; },
      [&](int one, int other) { set_bit(bits + 2 * one, other); });
  if (static_cast<int>(threadIdx.x) < num_earlier) {
    work.mask[(first_row + threadIdx.x) * kChunkWords + column] = joined(bits + 2 * threadIdx.x);
  }
}

// Walks through a chunk in order, 64 candidates at a time: one thread decides among them, then all
// threads mark what those kept suppress further on.  Leaves `removed` empty.
__global__ void __launch_bounds__(kSweepThreads)
    sweep(Suppression work, int64_t begin, int64_t count) {
  P3D_SHARED(unsigned long long, gone, kChunkWords);
  P3D_SHARED(uint64_t, diagonal, kTile);
  P3D_SHARED(uint64_t, fresh, 1);
  const int thread = static_cast<int>(threadIdx.x);
  int64_t num_kept = *work.num_kept;
  if (num_kept >= work.most_kept) return;
  if (thread < kChunkWords) {
    gone[thread] = work.removed[thread];
    work.removed[thread] = 0;
  }
  for (int64_t first = 0; first < count && num_kept < work.most_kept; first += kTile) {
    const int64_t word = first / kTile;
    const int some = static_cast<int>(min(count - first, static_cast<int64_t>(kTile)));
    if (thread < some) diagonal[thread] = work.mask[(first + thread) * kChunkWords + word];
    __syncthreads();
    if (thread == 0) {
      const uint64_t there = some < kTile ? (uint64_t{1} << some) - 1 : ~uint64_t{0};
      uint64_t alive = there & ~gone[word], kept = 0;
      for (int64_t room = work.most_kept - num_kept; alive != 0 && room > 0; --room) {
        const int one = __ffsll(static_cast<long long>(alive)) - 1;
        kept |= uint64_t{1} << one;
        alive &= ~(uint64_t{1} << one) & ~diagonal[one];
      }
      *fresh = kept;
    }
    __syncthreads();
    const uint64_t kept = *fresh;
    if (thread < some && (kept >> thread & 1) != 0) {
      const uint64_t before = kept & ((uint64_t{1} << thread) - 1);
      work.kept[num_kept + __popcll(before)] = static_cast<int32_t>(begin + first + thread);
    }
    num_kept += __popcll(kept);
    const int target = thread % static_cast<int>(kChunkWords);
    uint64_t hit = 0;
    if (target > word && static_cast<int64_t>(target) * kTile < count) {
      for (int one = thread / static_cast<int>(kChunkWords); one < some; one += kParts) {
        if ((kept >> one & 1) != 0) hit |= work.mask[(first + one) * kChunkWords + target];
      }
    }
    if (hit != 0) atomicOr(&gone[target], static_cast<unsigned long long>(hit));
    __syncthreads();
  }
  if (thread == 0) *work.num_kept = num_kept;
}

__global__ void __launch_bounds__(kThreads)
    take_kept(Suppression work, int64_t count, int64_t* rows) {
  const int64_t i = item_of_thread();
  if (i < count) rows[i] = work.order[work.kept[i]];
}

template <typename Rule>
Status suppress(const Rule& rule, const Suppression& work, Stream stream) {
  Status status = fill_bytes(work.num_kept, 0, sizeof(int64_t), stream);
  if (status != nullptr) return status;
  status = fill_bytes(work.removed, 0, kChunkWords * sizeof(uint64_t), stream);
  for (int64_t begin = 0; status == nullptr && begin < work.num_candidates; begin += kChunk) {
    const int64_t left = work.num_candidates - begin, count = left < kChunk ? left : kChunk;
    const int64_t tiles = (count + kTile - 1) / kTile;
    if (begin > 0) {
      status = launch(meet_kept<Rule>, Grid(tiles, kSplits), kThreads, 0, stream, rule, work, begin,
                      count);
      if (status != nullptr) return status;
    }
    status = launch(meet_each_other<Rule>, Grid(tiles, tiles), kThreads, 0, stream, rule, work,
                    begin, count);
    if (status != nullptr) return status;
    status = launch(sweep, 1, kSweepThreads, 0, stream, work, begin, count);
  }
  return status;
}

}  // namespace

template <typename T>
Status rank_scores(const Ranking<T>& ranking, Stream stream) {
  const Status status =
      launch(make_keys<T>, blocks_for(ranking.count), kThreads, 0, stream, ranking);
  if (status != nullptr) return status;
  return device_sort_pairs(ranking.keys, ranking.sorted_keys, ranking.rows, ranking.order,
                           ranking.count, 8 * static_cast<int>(sizeof(*ranking.keys)),
                           ranking.scratch, ranking.scratch_bytes, stream);
}

template <typename T>
Status suppress_boxes(const T* boxes, double iou_threshold, RotatedBox* prepared,
                      const Suppression& work, Stream stream) {
  const Status status = launch(prepare_candidates<T>, blocks_for(work.num_candidates), kThreads, 0,
                               stream, boxes, work, prepared);
  if (status != nullptr) return status;
  return suppress(BoxRule{prepared, iou_threshold}, work, stream);
}

template <typename T>
Status suppress_centers(const T* centers, double squared_distance, const Suppression& work,
                        Stream stream) {
  return suppress(CenterRule<T>{centers, work.order, squared_distance}, work, stream);
}

Status write_kept(const Suppression& work, int64_t count, int64_t* rows, Stream stream) {
  return launch(take_kept, blocks_for(count), kThreads, 0, stream, work, count, rows);
}

#define P3D_INSTANTIATE(T)                                                                   \
  template Status rank_scores(const Ranking<T>&, Stream);                                    \
  template Status suppress_boxes(const T*, double, RotatedBox*, const Suppression&, Stream); \
  template Status suppress_centers(const T*, double, const Suppression&, Stream);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace cuda
}  // namespace perception3d
