#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/radix_sort.h"
#include "cpu/row_groups.h"

namespace perception3d {
namespace {

constexpr int64_t kRowsPerWorker = 32768;

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
    if (key_bits + row_bits_ <= 64) {
      pack_rows(num_rows, threads);
      radix_sort(sorted_, row_bits_, key_bits, threads);
    } else {
      sort_huge_keys(num_rows);
    }
    num_kept_ = static_cast<int64_t>(sorted_.size());
    count_groups(threads);
  }

  void write(int64_t* order, int64_t* offsets, int64_t* keys) override {
    const int workers = static_cast<int>(first_group_.size());
    const uint64_t row_mask = (uint64_t{1} << row_bits_) - 1;
    for_each_block(workers, num_kept_, [&](int worker, int64_t begin, int64_t end) {
      int64_t group = first_group_[worker] - 1;
      for (int64_t i = begin; i < end; ++i) {
        if (starts_group(i)) {
          ++group;
          const int64_t code = sorted_[i] >> row_bits_;
          keys[group] = key_of_code_.empty() ? code : key_of_code_[code];
          offsets[group] = i;
        }
        order[i] = sorted_[i] & row_mask;
        key_of_row_[order[i]] = group;
      }
    });
    offsets[num_groups_] = num_kept_;
  }

 private:
  void pack_rows(int64_t num_rows, int threads) {
    const int workers = worker_count(threads, num_rows, kRowsPerWorker);
    std::vector<int64_t> next(workers);
    for_each_block(workers, num_rows, [&](int worker, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) next[worker] += key_of_row_[row] >= 0;
    });
    int64_t kept = 0;
    for (int64_t& first : next) {
      const int64_t count = first;
      first = kept;
      kept += count;
    }
    sorted_.resize(kept);
    for_each_block(workers, num_rows, [&](int worker, int64_t begin, int64_t end) {
      int64_t place = next[worker];
      for (int64_t row = begin; row < end; ++row) {
        if (key_of_row_[row] < 0) continue;
        sorted_[place++] = static_cast<uint64_t>(key_of_row_[row]) << row_bits_ | row;
      }
    });
  }

  // Keys that do not fit beside a row number are replaced by their rank.
  void sort_huge_keys(int64_t num_rows) {
    for (int64_t row = 0; row < num_rows; ++row) {
      if (key_of_row_[row] >= 0) sorted_.push_back(row);
    }
    std::stable_sort(sorted_.begin(), sorted_.end(),
                     [&](uint64_t a, uint64_t b) { return key_of_row_[a] < key_of_row_[b]; });
    for (uint64_t& row : sorted_) {
      const int64_t key = key_of_row_[row];
      if (key_of_code_.empty() || key_of_code_.back() != key) key_of_code_.push_back(key);
      row |= static_cast<uint64_t>(key_of_code_.size() - 1) << row_bits_;
    }
  }

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

  bool starts_group(int64_t i) const {
    return i == 0 || (sorted_[i] ^ sorted_[i - 1]) >> row_bits_ != 0;
  }

  int64_t* key_of_row_;
  int row_bits_;
  std::vector<uint64_t> sorted_;      // code << row_bits_ | row, ascending
  std::vector<int64_t> key_of_code_;  // empty where codes are the keys themselves
  std::vector<int64_t> first_group_;  // groups that start before each worker's block
};

}  // namespace

std::unique_ptr<RowGroups> group_rows_by_sorting(int64_t* key_of_row, int64_t num_rows,
                                                 int64_t key_bound, int threads) {
  return std::make_unique<SortedGroups>(key_of_row, num_rows, key_bound, threads);
}

}  // namespace perception3d
