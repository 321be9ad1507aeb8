// What scans and causal convolutions share: sequences laid end to end, and rows with a stride.
#pragma once

#include <cstdint>

namespace perception3d {

// Places between two checkpoints of the state.
constexpr int64_t kScanChunk = 64;

// Rows of a matrix that need not lie next to each other; data is null where there is none.
template <typename Scalar>
struct Rows {
  Scalar* data;
  int64_t stride;
};

// L places in S sequences: sequence s holds the places offsets[s] .. offsets[s + 1] - 1, and place
// p is row order[p], or row p where order is null.  Reversed, the walk goes from place L - 1 to 0.
struct SequenceLayout {
  int64_t length, sequences;
  const int64_t* offsets;
  const int64_t* order;
  bool reverse;
};

struct ScanShape {
  SequenceLayout layout;
  int64_t channels, states;
};

}  // namespace perception3d
