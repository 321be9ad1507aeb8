// How a scan is cut for the CPU: into runs of neighbouring places of one sequence and one chunk,
// and into parts of whole sequences that threads may take at the same time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/parallel.h"
#include "common/scan_layout.h"

namespace perception3d {

// At most this many parts: they do not depend on the number of threads, because sums over places
// are made part by part.
constexpr int64_t kScanParts = 8;
constexpr int64_t kPlacesPerPart = 512;
// Below this many states over all places, a second thread costs more than it brings.
constexpr int64_t kStatesPerWorker = 1 << 17;

// Steps begin .. begin + length - 1 of the walk.
struct Run {
  int64_t begin, length;
  int64_t sequence, sequence_begin, sequence_end;  // a number, and steps

  bool starts() const { return begin == sequence_begin; }
  bool ends() const { return begin + length == sequence_end; }
};

struct RunList {
  std::vector<Run> runs;            // in the order of the walk
  std::vector<int64_t> part_begin;  // part p holds the runs part_begin[p] .. part_begin[p + 1] - 1
  int64_t parts() const { return static_cast<int64_t>(part_begin.size()) - 1; }
};

inline RunList cut_into_runs(const SequenceLayout& layout) {
  RunList list;
  list.runs.reserve(layout.length / kScanChunk + layout.sequences + 1);
  const int64_t parts = std::clamp<int64_t>(layout.length / kPlacesPerPart, 1, kScanParts);
  int64_t step = 0;
  for (int64_t i = 0; i < layout.sequences; ++i) {
    const int64_t sequence = layout.reverse ? layout.sequences - 1 - i : i;
    const int64_t first = step;
    const int64_t end = first + layout.offsets[sequence + 1] - layout.offsets[sequence];
    const int64_t opened = static_cast<int64_t>(list.part_begin.size());
    // A part is as long as its share of the places, rounded up to whole sequences.
    if (end > first && first >= block_begin(layout.length, parts, std::min(opened, parts - 1)) &&
        opened < parts) {
      list.part_begin.push_back(static_cast<int64_t>(list.runs.size()));
    }
    while (step < end) {
      const int64_t chunk_end = (step / kScanChunk + 1) * kScanChunk;
      const int64_t next = std::min(end, chunk_end);
      list.runs.push_back({step, next - step, sequence, first, end});
      step = next;
    }
  }
  list.part_begin.push_back(static_cast<int64_t>(list.runs.size()));
  return list;
}

// Channels that one thread walks together: as many as it can get, so that it reads long pieces of
// rows and reads B and C once.
struct ChannelShares {
  int workers;
  int64_t channels;  // of every share but the last, a multiple of `unit`
  int64_t count;

  ChannelShares(const ScanShape& shape, int64_t parts, int64_t unit, int threads) {
    const int64_t states = shape.layout.length * shape.channels * shape.states;
    workers = worker_count(threads, states, kStatesPerWorker);
    const int64_t units = (shape.channels + unit - 1) / unit;
    const int64_t wanted = std::clamp<int64_t>((workers + parts - 1) / std::max<int64_t>(parts, 1),
                                               1, std::max<int64_t>(units, 1));
    channels = std::max<int64_t>((units + wanted - 1) / wanted, 1) * unit;
    count = (shape.channels + channels - 1) / channels;
  }
};

P3D_INLINE int64_t row_of_step(const SequenceLayout& layout, int64_t step) {
  const int64_t place = layout.reverse ? layout.length - 1 - step : step;
  return layout.order == nullptr ? place : layout.order[place];
}

// The rows that a run visits, in the order of the walk.
P3D_INLINE void rows_of_run(const SequenceLayout& layout, const Run& run, int64_t* row) {
  for (int64_t i = 0; i < run.length; ++i) row[i] = row_of_step(layout, run.begin + i);
}

}  // namespace perception3d
