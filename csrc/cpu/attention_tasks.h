// How sets are dealt out to threads, and how their rows come into fast memory.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "common/parallel.h"
#include "cpu/set_attention.h"
#include "cpu/vectors.h"

namespace perception3d {

// Larger sets are cut by head, and where that is allowed by query, into tasks of their own.
constexpr int64_t kLongSet = 256;
// Small sets are put together until a task has this many rows.
constexpr int64_t kRowsPerTask = 64;
constexpr int64_t kRowsPerWorker = 256;
constexpr int64_t kRowsAhead = 64;

// Sets first_set..last_set; of every set the queries from query_begin up to query_end where the set
// has as many, and the heads head_begin..head_end.
struct AttentionTask {
  int64_t first_set, last_set;
  int64_t query_begin, query_end;
  int64_t head_begin, head_end;
};

// The tasks that cover all sets, long ones first: they must not be started last.
inline std::vector<AttentionTask> list_tasks(const RowSets& sets, int64_t heads, bool cut_queries) {
  std::vector<AttentionTask> tasks;
  for (int64_t set = 0; set < sets.count; ++set) {
    const int64_t rows = sets.offsets[set + 1] - sets.offsets[set];
    if (rows <= kLongSet) continue;
    const int64_t step = cut_queries ? kLongSet : rows;
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t query = 0; query < rows; query += step) {
        tasks.push_back({set, set + 1, query, std::min(rows, query + step), head, head + 1});
      }
    }
  }
  int64_t first = 0;
  const auto close = [&](int64_t last) {
    if (first < last) tasks.push_back({first, last, 0, kLongSet, 0, heads});
    first = last;
  };
  for (int64_t set = 0; set < sets.count; ++set) {
    if (sets.offsets[set + 1] - sets.offsets[set] > kLongSet) {
      close(set);
      first = set + 1;
    } else if (sets.offsets[set + 1] - sets.offsets[first] >= kRowsPerTask) {
      close(set + 1);
    }
  }
  close(sets.count);
  return tasks;
}

// Calls body(set, query_begin, query_end, head) for every part of every task.
template <typename Body>
void for_each_part(const RowSets& sets, int64_t heads, bool cut_queries, int threads,
                   const Body& body) {
  const std::vector<AttentionTask> tasks = list_tasks(sets, heads, cut_queries);
  const int64_t rows = sets.offsets[sets.count];
  for_each_dynamic(worker_count(threads, rows, kRowsPerWorker), tasks.size(), 1, [&](int64_t i) {
    const AttentionTask& task = tasks[i];
    for (int64_t set = task.first_set; set < task.last_set; ++set) {
      const int64_t count = sets.offsets[set + 1] - sets.offsets[set];
      const int64_t last = std::min(task.query_end, count);
      for (int64_t head = task.head_begin; task.query_begin < last && head < task.head_end;
           ++head) {
        body(set, task.query_begin, last, head);
      }
    }
  });
}

// Rows of the set after this one, as far as it is worth fetching them early.
inline int64_t next_count(const RowSets& sets, int64_t set) {
  const bool is_long = sets.offsets[set + 1] - sets.offsets[set] > kLongSet;
  if (is_long || set + 1 >= sets.count) return 0;
  return std::min(kRowsAhead, sets.offsets[set + 2] - sets.offsets[set + 1]);
}

// Memory of one thread, kept from call to call; its pieces begin on cache lines.
class AttentionScratch {
 public:
  // Makes room for pieces of altogether `bytes` bytes, each of which may waste a line.
  void reserve(int64_t bytes, int64_t pieces) {
    const int64_t lines = bytes / kLineBytes + pieces;
    if (static_cast<int64_t>(lines_.size()) < lines) lines_.resize(lines);
    next_ = 0;
  }

  template <typename Number>
  Number* take(int64_t count) {
    Number* piece = reinterpret_cast<Number*>(lines_.data() + next_);
    next_ += (count * static_cast<int64_t>(sizeof(Number)) + kLineBytes - 1) / kLineBytes;
    return piece;
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  struct alignas(kLineBytes) Line {
    char bytes[kLineBytes];
  };
  std::vector<Line> lines_;
  int64_t next_ = 0;
};

// Fetches the cache lines of first..last: into the first cache to be written, into the second to be
// read.
template <bool kWritten, typename Scalar>
P3D_INLINE void prefetch_lines(const Scalar* first, const Scalar* last) {
  const uintptr_t end = reinterpret_cast<uintptr_t>(last);
  for (uintptr_t line = reinterpret_cast<uintptr_t>(first) & ~uintptr_t{63}; line < end;
       line += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(line), kWritten, kWritten ? 3 : 2);
  }
}

// Has rows of one head fetched early: they lie anywhere in memory, so no hardware foresees them.
// They come into the second cache alone: a whole set passes before they are read, more than the
// first holds.
template <typename Scalar>
P3D_INLINE void prefetch_rows(const HeadRows<Scalar>& rows, const int64_t* order, int64_t count,
                              int64_t head, int64_t width) {
  for (int64_t i = 0; i < count; ++i) {
    const Scalar* row = rows.at(order[i], head);
    prefetch_lines<false>(row, row + width);
  }
}

// The same for rows that are written soon.
template <typename Scalar>
P3D_INLINE void prefetch_written(const WritableHeadRows<Scalar>& rows, const int64_t* order,
                                 int64_t count, int64_t head, int64_t width) {
  for (int64_t i = 0; i < count; ++i) {
    Scalar* row = rows.at(order[i], head);
    prefetch_lines<true>(row, row + width);
  }
}

// target (count, stride) = the rows order[0..count) of one head, converted; the columns from
// `width` to `stride` stay as they are.
template <typename Scalar, typename Number>
P3D_INLINE void pack_rows(const HeadRows<Scalar>& rows, const int64_t* order, int64_t count,
                          int64_t head, int64_t width, int64_t stride, Number* target) {
  for (int64_t i = 0; i < count; ++i) {
    const Scalar* source = rows.at(order[i], head);
    Number* line = target + i * stride;
    int64_t d = 0;
    for (; d + 8 <= width; d += 8) {
      Numbers<Number, 8> numbers;
      load_vector<8>(source + d, numbers);
      store_vector<8>(numbers, line + d);
    }
    for (; d < width; ++d) line[d] = load(source[d]);
  }
}

// Rows that many queries pass through lie side by side; few are read where they are.
constexpr int64_t kMostRowsInPlace = 128;

// found[i] = row order[i] of one head as numbers to compute with: itself, or a copy in `space`
// (count, width).
template <typename Scalar, typename Number>
P3D_INLINE void list_rows(const HeadRows<Scalar>& rows, const int64_t* order, int64_t count,
                          int64_t head, int64_t width, Number* space, const Number** found) {
  if constexpr (std::is_same_v<Scalar, Number>) {
    if (count <= kMostRowsInPlace) {
      for (int64_t i = 0; i < count; ++i) found[i] = rows.at(order[i], head);
      return;
    }
  }
  pack_rows(rows, order, count, head, width, width, space);
  for (int64_t i = 0; i < count; ++i) found[i] = space + i * width;
}

// The way back: row order[i] of one head = source (count, stride).
template <typename Scalar, typename Number>
P3D_INLINE void unpack_rows(const Number* source, int64_t count, int64_t stride,
                            const int64_t* order, int64_t head, int64_t width,
                            const WritableHeadRows<Scalar>& rows) {
  for (int64_t i = 0; i < count; ++i) {
    Scalar* target = rows.at(order[i], head);
    const Number* line = source + i * stride;
    int64_t d = 0;
    for (; d + 8 <= width; d += 8) {
      Numbers<Number, 8> numbers;
      load_vector<8>(line + d, numbers);
      store_vector<8>(numbers, target + d);
    }
    for (; d < width; ++d) store(line[d], target[d]);
  }
}

}  // namespace perception3d
