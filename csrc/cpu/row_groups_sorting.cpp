#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/radix_sort.h"
#include "cpu/row_groups.h"

namespace perception3d {
namespace {

constexpr int64_t kRowsPerWorker = 16384;

int bits_below(int64_t bound) {
  int bits = 0;
  while (bits < 63 && (int64_t{1} << bits) < bound) ++bits;
  return bits;
}

class SortedGroups final : public RowGroups {
 public:
  SortedGroups(int64_t* key_of_row, int64_t num_rows, int64_t key_bound, int threads)
      : key_of_row_(key_of_row), row_bits_(bits_below(num_rows)) {
    const int key_bits = bits_below(key_bound);
    packed_ = key_bits + row_bits_ <= 64;
    sorted_.reserve(num_rows);
    for (int64_t row = 0; row < num_rows; ++row) {
      const int64_t key = key_of_row[row];
      if (key >= 0) sorted_.push_back(packed_ ? uint64_t(key) << row_bits_ | uint64_t(row) : row);
    }
    num_kept_ = static_cast<int64_t>(sorted_.size());
    if (packed_) {
      radix_sort(sorted_, row_bits_, key_bits, threads);
    } else {
      std::stable_sort(sorted_.begin(), sorted_.end(),
                       [&](uint64_t a, uint64_t b) { return key_of_row[a] < key_of_row[b]; });
    }
    count_groups(threads);
  }

  void write(int64_t* order, int64_t* offsets, int64_t* keys) override {
    const int workers = static_cast<int>(first_group_.size());
    for_each_block(workers, num_kept_, [&](int worker, int64_t begin, int64_t end) {
      int64_t group = first_group_[worker];
      for (int64_t i = begin; i < end; ++i) {
        order[i] = row_at(i);
        if (starts_group(i)) {
          keys[group] = key_at(i);
          offsets[group++] = i;
        }
      }
    });
    offsets[num_groups_] = num_kept_;
    for_each_block(workers, num_groups_, [&](int, int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        for (int64_t i = offsets[group]; i < offsets[group + 1]; ++i) key_of_row_[order[i]] = group;
      }
    });
  }

 private:
  void count_groups(int threads) {
    const int workers = worker_count(threads, num_kept_, kRowsPerWorker);
    first_group_.resize(workers);
    for_each_block(workers, num_kept_, [&](int worker, int64_t begin, int64_t end) {
      int64_t count = 0;
      for (int64_t i = begin; i < end; ++i) count += starts_group(i);
      first_group_[worker] = count;
    });
    for (int64_t& first : first_group_) {
      const int64_t count = first;
      first = num_groups_;
      num_groups_ += count;
    }
  }

  bool starts_group(int64_t i) const { return i == 0 || key_at(i) != key_at(i - 1); }

  int64_t row_at(int64_t i) const {
    return packed_ ? sorted_[i] & ((uint64_t{1} << row_bits_) - 1) : sorted_[i];
  }

  int64_t key_at(int64_t i) const {
    return packed_ ? sorted_[i] >> row_bits_ : key_of_row_[sorted_[i]];
  }

  int64_t* key_of_row_;
  int row_bits_;
  bool packed_;  // sorted_ holds key << row_bits_ | row, or the row alone
  std::vector<uint64_t> sorted_;
  std::vector<int64_t> first_group_;  // number of the first group that starts in a worker's block
};

}  // namespace

std::unique_ptr<RowGroups> group_rows_by_sorting(int64_t* key_of_row, int64_t num_rows,
                                                 int64_t key_bound, int threads) {
  return std::make_unique<SortedGroups>(key_of_row, num_rows, key_bound, threads);
}

}  // namespace perception3d
