#include <vector>

#include "common/parallel.h"
#include "cpu/row_groups.h"

namespace perception3d {
namespace {

constexpr int64_t kRowsPerWorker = 32768;
constexpr int64_t kWordsPerWorker = 131072;

struct Word {
  uint64_t bits;   // bit k: key 64 * word + k occurs
  int64_t before;  // groups with a smaller key than those of this word
};

// Sets the bit of every key; returns the number of rows that have one.
int64_t mark(const int64_t* key_of_row, int64_t begin, int64_t end, Word* words) {
  int64_t kept = 0;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t key = key_of_row[row];
    if (key < 0) continue;
    ++kept;
    uint64_t* bits = &words[key >> 6].bits;
    const uint64_t bit = uint64_t{1} << (key & 63);
    // Most rows find their bit set, and a plain load costs far less than an atomic write.
    if (!(__atomic_load_n(bits, __ATOMIC_RELAXED) & bit)) {
      __atomic_fetch_or(bits, bit, __ATOMIC_RELAXED);
    }
  }
  return kept;
}

P3D_CLONES int64_t count_bits(const Word* words, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) count += __builtin_popcountll(words[i].bits);
  return count;
}

P3D_CLONES void number_words(Word* words, int64_t begin, int64_t end, int64_t before) {
  for (int64_t i = begin; i < end; ++i) {
    words[i].before = before;
    before += __builtin_popcountll(words[i].bits);
  }
}

// Replaces keys by group numbers and counts the rows of each group.
P3D_CLONES void rank_rows(const Word* words, int64_t* key_of_row, int64_t begin, int64_t end,
                          int32_t* count) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t key = key_of_row[row];
    if (key < 0) continue;
    const Word& word = words[key >> 6];
    const uint64_t smaller = word.bits & ((uint64_t{1} << (key & 63)) - 1);
    const int64_t group = word.before + __builtin_popcountll(smaller);
    key_of_row[row] = group;
    ++count[group];
  }
}

class MarkedGroups final : public RowGroups {
 public:
  MarkedGroups(int64_t* key_of_row, int64_t num_rows, int64_t key_bound, int threads)
      : key_of_row_(key_of_row),
        num_rows_(num_rows),
        threads_(threads),
        words_(key_bound / 64 + 1) {
    const int workers = worker_count(threads, num_rows, kRowsPerWorker);
    std::vector<int64_t> kept(workers);
    for_each_block(workers, num_rows, [&](int worker, int64_t begin, int64_t end) {
      kept[worker] = mark(key_of_row, begin, end, words_.data());
    });
    for (const int64_t rows : kept) num_kept_ += rows;
    number_marks();
  }

  void write(int64_t* order, int64_t* offsets, int64_t* keys) override {
    // Every worker has a counter per group: more workers only pay while groups are few.
    const int workers =
        worker_count(threads_, num_rows_, std::max(kRowsPerWorker, num_groups_ / 2));
    std::vector<int32_t> next(workers * num_groups_);
    for_each_block(workers, num_rows_, [&](int worker, int64_t begin, int64_t end) {
      rank_rows(words_.data(), key_of_row_, begin, end, next.data() + worker * num_groups_);
    });
    int64_t position = 0;
    for (int64_t group = 0; group < num_groups_; ++group) {
      offsets[group] = position;
      for (int worker = 0; worker < workers; ++worker) {
        int32_t& slot = next[worker * num_groups_ + group];
        const int32_t count = slot;
        slot = static_cast<int32_t>(position);
        position += count;
      }
    }
    offsets[num_groups_] = position;
    for_each_block(workers, num_rows_, [&](int worker, int64_t begin, int64_t end) {
      int32_t* slot = next.data() + worker * num_groups_;
      for (int64_t row = begin; row < end; ++row) {
        if (key_of_row_[row] >= 0) order[slot[key_of_row_[row]]++] = row;
      }
    });
    write_keys(keys);
  }

 private:
  void number_marks() {
    const int64_t num_words = static_cast<int64_t>(words_.size());
    const int workers = worker_count(threads_, num_words, kWordsPerWorker);
    std::vector<int64_t> before(workers);
    for_each_block(workers, num_words, [&](int worker, int64_t begin, int64_t end) {
      before[worker] = count_bits(words_.data(), begin, end);
    });
    for (int64_t& count : before) {
      const int64_t groups = count;
      count = num_groups_;
      num_groups_ += groups;
    }
    for_each_block(workers, num_words, [&](int worker, int64_t begin, int64_t end) {
      number_words(words_.data(), begin, end, before[worker]);
    });
  }

  void write_keys(int64_t* keys) const {
    const int64_t num_words = static_cast<int64_t>(words_.size());
    const int workers = worker_count(threads_, num_words, kWordsPerWorker);
    for_each_block(workers, num_words, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t group = words_[i].before;
        for (uint64_t bits = words_[i].bits; bits != 0; bits &= bits - 1) {
          keys[group++] = 64 * i + __builtin_ctzll(bits);
        }
      }
    });
  }

  int64_t* key_of_row_;
  int64_t num_rows_;
  int threads_;
  std::vector<Word> words_;
};

}  // namespace

std::unique_ptr<RowGroups> group_rows_by_marking(int64_t* key_of_row, int64_t num_rows,
                                                 int64_t key_bound, int threads) {
  return std::make_unique<MarkedGroups>(key_of_row, num_rows, key_bound, threads);
}

}  // namespace perception3d
