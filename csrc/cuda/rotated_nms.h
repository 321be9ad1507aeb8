// Greedy suppression in score order, on CUDA: boxes by IoU, centres by distance.  The results are
// those of cpu/rotated_nms.h.
//
// Candidates are taken in chunks.  Those of a chunk first meet what has been kept before, then each
// other: a matrix of bits says who suppresses whom, and one block walks through it.  The host waits
// once, for the number of kept candidates.
#pragma once

#include <cstdint>

#include "common/rotated_box.h"
#include "common/status.h"

namespace perception3d {
namespace cuda {

#if defined(P3D_SIMT)
constexpr int64_t kChunk = 256;  // so that tests reach several chunks
#else
constexpr int64_t kChunk = 4096;
#endif
constexpr int64_t kChunkWords = kChunk / 64;

// Key of a score type: as wide as the type.
template <typename T>
struct ScoreKey;
template <>
struct ScoreKey<float> {
  using Type = uint32_t;
};
template <>
struct ScoreKey<double> {
  using Type = uint64_t;
};

template <typename T>
struct Ranking {
  const T* scores;
  int64_t count;                                   // < 2^31
  typename ScoreKey<T>::Type *keys, *sorted_keys;  // (count)
  int32_t* rows;                                   // (count)
  int32_t* order;                                  // (count), filled: rows by descending score
  void* scratch;
  int64_t scratch_bytes;
};

// Rows by descending score, equal scores by ascending row; NaN ranks as -inf.
template <typename T>
Status rank_scores(const Ranking<T>& ranking, Stream stream);

struct Suppression {
  const int32_t* order;  // of rank_scores
  int64_t num_candidates;
  int64_t most_kept;
  uint64_t* removed;  // (kChunkWords) bits of a chunk's candidates
  uint64_t* mask;     // (kChunk, kChunkWords) bit c of row r: candidate r suppresses candidate c
  int32_t* kept;      // (num_candidates) places in `order` of what is kept
  int64_t* num_kept;  // (1)
};

// boxes: rows x, y, z, dx, dy, dz, yaw.  prepared: memory for num_candidates boxes.
template <typename T>
Status suppress_boxes(const T* boxes, double iou_threshold, RotatedBox* prepared,
                      const Suppression& work, Stream stream);

// centers: rows x, y.
template <typename T>
Status suppress_centers(const T* centers, double squared_distance, const Suppression& work,
                        Stream stream);

// rows (count): what is kept, count being *num_kept.
Status write_kept(const Suppression& work, int64_t count, int64_t* rows, Stream stream);

}  // namespace cuda
}  // namespace perception3d
