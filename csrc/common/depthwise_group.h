// What a depth-wise convolution consists of, for the kernels of all devices.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace perception3d {

// One kernel and the channels first .. first + channels - 1 that it works on.
template <typename Scalar>
struct DepthwiseGroup {
  const int32_t* neighbours;  // (rows, taps), the table of subm_index
  const Scalar* weight;       // (taps, channels)
  int64_t taps, first, channels;
};

struct ChannelRange {
  int64_t first, count;
};

// Features (rows, columns); groups share no channel.  Channels of no group are passed on.  With
// `residual` the features are added to the result.
template <typename Scalar>
struct DepthwiseConv {
  int64_t rows, columns;
  bool residual;
  std::vector<DepthwiseGroup<Scalar>> groups;

  std::vector<ChannelRange> passed_on() const {
    std::vector<ChannelRange> taken, passed;
    for (const auto& group : groups) taken.push_back({group.first, group.channels});
    std::sort(taken.begin(), taken.end(),
              [](const ChannelRange& a, const ChannelRange& b) { return a.first < b.first; });
    taken.push_back({columns, 0});
    int64_t next = 0;
    for (const ChannelRange& range : taken) {
      if (range.first > next) passed.push_back({next, range.first - next});
      next = range.first + range.count;
    }
    return passed;
  }
};

}  // namespace perception3d
