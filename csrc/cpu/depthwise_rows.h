// The inner loops of depthwise_conv: one row of one group, in pieces of channels.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/vectors.h"

namespace perception3d {
namespace depthwise {

// A voxel that exists, and the tap at which it lies.
struct Present {
  int32_t row, tap;
};

// Lists the taps that have a voxel; returns their number.  `present` has an entry per tap.
P3D_INLINE int64_t list_present(const int32_t* neighbours, int64_t taps, Present* present) {
  int64_t count = 0;
  for (int64_t tap = 0; tap < taps; ++tap) {
    present[count] = Present{neighbours[tap], static_cast<int32_t>(tap)};
    count += neighbours[tap] >= 0;
  }
  return count;
}

// A group as its loops need it; the weight is converted.
template <typename Scalar>
struct Group {
  const int32_t* neighbours;
  std::vector<Compute<Scalar>> weight;
  int64_t taps, first, channels;
};

// Calls piece.run<vectors, lanes>(channel) for pieces that make up all channels.
template <typename Piece>
P3D_INLINE void for_each_piece(int64_t channels, const Piece& piece) {
  int64_t c = 0;
  for (; c + 64 <= channels; c += 64) piece.template run<4, 16>(c);
  for (; c + 32 <= channels; c += 32) piece.template run<2, 16>(c);
  for (; c + 16 <= channels; c += 16) piece.template run<1, 16>(c);
  for (; c + 4 <= channels; c += 4) piece.template run<1, 4>(c);
  for (; c < channels; ++c) piece.template run<1, 1>(c);
}

template <typename Scalar>
struct ForwardRow {
  const Scalar* features;  // of the group's first channel
  const Scalar* residual;  // the row itself, or null
  const Compute<Scalar>* weight;
  const Present* present;
  int64_t count, columns, channels;
  Scalar* result;  // the row

  template <int kVectors, int kLanes>
  P3D_INLINE void run(int64_t channel) const {
    typedef Numbers<Compute<Scalar>, kLanes> Vector;
    Vector sum[kVectors] = {};
    for (int v = 0; v < kVectors && residual != nullptr; ++v) {
      load_vector<kLanes>(residual + channel + v * kLanes, sum[v]);
    }
    for (int64_t i = 0; i < count; ++i) {
      const Scalar* value = features + present[i].row * columns + channel;
      const Compute<Scalar>* factor = weight + present[i].tap * channels + channel;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Vector a, b;
        load_vector<kLanes>(value + v * kLanes, a);
        load_vector<kLanes>(factor + v * kLanes, b);
        sum[v] += a * b;
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store_vector<kLanes>(sum[v], result + channel + v * kLanes);
    }
  }
};

// With the voxel q at tap k of voxel p, p lies at the opposite tap of q.  So both gradients read
// what lies around q in the gradient: at q the feature's gradient is a sum over these rows, and
// each of them times the features of q belongs to the weight of the opposite tap.
template <typename Scalar, bool kFeatures, bool kWeight>
struct BackwardRow {
  const Scalar* grad;      // of the group's first channel
  const Scalar* residual;  // gradient of the row itself, or null
  const Scalar* features;  // the row
  const Compute<Scalar>* weight;
  const Present* present;
  int64_t count, columns, taps, channels;
  Scalar* grad_features;         // the row
  Compute<Scalar>* grad_weight;  // added to

  template <int kVectors, int kLanes>
  P3D_INLINE void run(int64_t channel) const {
    typedef Numbers<Compute<Scalar>, kLanes> Vector;
    Vector sum[kVectors] = {}, own[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) {
      if (kFeatures && residual != nullptr) {
        load_vector<kLanes>(residual + channel + v * kLanes, sum[v]);
      }
      if (kWeight) load_vector<kLanes>(features + channel + v * kLanes, own[v]);
    }
    for (int64_t i = 0; i < count; ++i) {
      const Scalar* value = grad + present[i].row * columns + channel;
      const int64_t place = (taps - 1 - present[i].tap) * channels + channel;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Vector a, b;
        load_vector<kLanes>(value + v * kLanes, a);
        if (kFeatures) {
          load_vector<kLanes>(weight + place + v * kLanes, b);
          sum[v] += a * b;
        }
        if (kWeight) {
          load_vector<kLanes>(grad_weight + place + v * kLanes, b);
          b += a * own[v];
          store_vector<kLanes>(b, grad_weight + place + v * kLanes);
        }
      }
    }
    for (int v = 0; v < kVectors && kFeatures; ++v) {
      store_vector<kLanes>(sum[v], grad_features + channel + v * kLanes);
    }
  }
};

// Channels of no group: target = source, or twice that.
template <typename Scalar>
struct PassedRow {
  const Scalar* source;  // the row
  bool twice;
  Scalar* target;  // the row

  template <int kVectors, int kLanes>
  P3D_INLINE void run(int64_t channel) const {
    for (int v = 0; v < kVectors; ++v) {
      Numbers<Compute<Scalar>, kLanes> value;
      load_vector<kLanes>(source + channel + v * kLanes, value);
      if (twice) value += value;
      store_vector<kLanes>(value, target + channel + v * kLanes);
    }
  }
};

template <typename Scalar>
struct Rows {
  int64_t begin, end, columns;
  bool residual;
  Present* present;  // scratch, an entry per tap
};

}  // namespace depthwise
}  // namespace perception3d
