// Rows that are needed soon, fetched into the caches while something else is computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/linear_attention.h"
#include "common/parallel.h"
#include "cpu/linear_attention_blocks.h"
#include "cpu/window_work.h"

namespace perception3d {

constexpr int64_t kCacheLine = 64;

// Lines to fetch, one with each step of a loop of products: memory is then busy all the time and
// nobody waits for it, where a burst of fetches waits for itself.
struct Fetches {
  const char* const* next;
  const char* const* last;

  P3D_INLINE void step() {
    if (next != last) __builtin_prefetch(*next++, 0, 2);
  }

  void finish() {
    while (next != last) step();
  }
};

// Walks through places ahead of the kernels, which go through the rows of a window several times
// but through memory once: rows are fetched at the pace of all passes together.
class RowFetcher {
 public:
  // Of `count` places, each worked on `passes` times, counting every head.
  RowFetcher(const int64_t* order, int64_t count, int64_t passes)
      : order_(order), count_(count), passes_(passes) {}

  // Rows of `heads` heads that belong to the places, to read or to write: HeadRows or
  // WritableHeadRows.
  template <typename Rows>
  void add(const Rows& rows, int64_t heads, int64_t width) {
    const int64_t size = sizeof(*rows.numbers);
    for (int64_t head = 0; head < heads; ++head) {
      add_piece({reinterpret_cast<const char*>(rows.numbers + head * rows.head_stride),
                 rows.row_stride * size, width * size});
    }
  }

  // What to fetch while one head of `rows` rows from `place` on is worked on.
  Fetches during(int64_t place, int64_t rows) {
    // A later pass over a window begins behind the last one, an unrelated one further away.
    if (place_ < place || place_ > place + kPartRows + most_rows_ahead_) place_ = place;
    owed_ = std::min(owed_ + rows, passes_ * kBlockRows);
    const int64_t begin = place_;
    const int64_t end = std::max(place + kLeastRowsAhead,
                                 std::min(begin + owed_ / passes_, place + most_rows_ahead_));
    const Fetches fetches = list(std::min(end, count_));
    owed_ = std::max<int64_t>(owed_ - (place_ - begin) * passes_, 0);
    return fetches;
  }

 private:
  struct Piece {
    const char* first;
    int64_t stride;
    int64_t bytes;
  };

  void add_piece(const Piece& piece) {
    if (!pieces_.empty() && pieces_.back().stride == piece.stride &&
        pieces_.back().first + pieces_.back().bytes == piece.first) {
      pieces_.back().bytes += piece.bytes;
    } else {
      pieces_.push_back(piece);
    }
    lines_per_row_ = 0;
    for (const Piece& each : pieces_) lines_per_row_ += (each.bytes + kCacheLine - 1) / kCacheLine;
    most_rows_ahead_ = std::max(
        kLeastRowsAhead, kMostBytesAhead / std::max<int64_t>(lines_per_row_ * kCacheLine, 1));
    lines_.resize(std::max<int64_t>(lines_per_row_, kMostLines));
  }

  // The lines of the places before `end`, as many as there is room for.
  Fetches list(int64_t end) {
    const char** line = lines_.data();
    const char** const last = line + lines_.size() - lines_per_row_;
    for (; place_ < end && line <= last; ++place_) {
      const int64_t row = order_ == nullptr ? place_ : order_[place_];
      for (const Piece& piece : pieces_) {
        const char* byte = piece.first + row * piece.stride;
        const int64_t count = (piece.bytes + kCacheLine - 1) / kCacheLine;
        for (int64_t i = 0; i < count; ++i) line[i] = byte + i * kCacheLine;
        line += count;
      }
    }
    return {lines_.data(), line};
  }

  static constexpr int64_t kMostLines = 1024;
  static constexpr int64_t kLeastRowsAhead = 64;
  static constexpr int64_t kMostBytesAhead = 640 << 10;  // part of a second-level cache

  const int64_t* order_;
  int64_t count_;
  int64_t passes_;
  std::vector<Piece> pieces_;
  int64_t lines_per_row_ = 0;
  int64_t most_rows_ahead_ = 0;
  std::vector<const char*> lines_;
  int64_t place_ = 0;
  int64_t owed_ = 0;
};

}  // namespace perception3d
