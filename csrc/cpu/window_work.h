// Work items over windows of any length: short windows are packed, long ones are split.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace perception3d {

// Windows of more rows are split.  Must not depend on the number of threads: the order of sums does
// depend on it.
constexpr int64_t kPartRows = 512;

// The whole windows [first, last).
struct WindowRun {
  int64_t first;
  int64_t last;
};

// The places [begin, end) of one window of more than kPartRows rows.
struct WindowPart {
  int64_t begin;
  int64_t end;
  int64_t first_part;  // index of the first part of its window
};

struct WindowWork {
  std::vector<WindowRun> runs;
  std::vector<WindowPart> parts;  // those of a window side by side, in order

  int64_t items() const { return static_cast<int64_t>(parts.size() + runs.size()); }
  int64_t num_parts() const { return static_cast<int64_t>(parts.size()); }
};

inline WindowWork divide_windows(const int64_t* offsets, int64_t num_windows, int threads) {
  // Long runs walk through memory in one direction; eight a thread keep all of them busy.
  const int64_t run_rows = std::clamp<int64_t>(offsets[num_windows] / (8 * threads), 128, 2048);
  WindowWork work;
  int64_t first = 0;
  const auto close_run = [&](int64_t last) {
    if (offsets[first] < offsets[last]) work.runs.push_back({first, last});
  };
  for (int64_t window = 0; window < num_windows; ++window) {
    if (offsets[window + 1] - offsets[window] > kPartRows) {
      close_run(window);
      first = window + 1;
      const int64_t first_part = work.num_parts();
      for (int64_t begin = offsets[window]; begin < offsets[window + 1]; begin += kPartRows) {
        work.parts.push_back({begin, std::min(begin + kPartRows, offsets[window + 1]), first_part});
      }
    } else if (offsets[window + 1] - offsets[first] >= run_rows) {
      close_run(window + 1);
      first = window + 1;
    }
  }
  close_run(num_windows);
  return work;
}

// Adds what the parts of a window have summed up, in their order, to its first part: states is
// (parts, numbers).
template <typename Number>
void join_parts(const WindowWork& work, int64_t numbers, Number* states) {
  for (int64_t part = 0; part < work.num_parts(); ++part) {
    const int64_t first = work.parts[part].first_part;
    if (first == part) continue;
    for (int64_t i = 0; i < numbers; ++i) states[first * numbers + i] += states[part * numbers + i];
  }
}

}  // namespace perception3d
