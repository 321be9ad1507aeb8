#include "cpu/radix_sort.h"

#include "common/parallel.h"

namespace perception3d {
namespace {

constexpr int kMaxDigitBits = 10;  // 1024 write streams still fit the second-level cache
constexpr int64_t kValuesPerWorker = 32768;

// One pass: values to sorted by the digit at `shift`.
void sort_by_digit(const uint64_t* values, uint64_t* sorted, int64_t count, int shift,
                   int digit_bits, int workers) {
  const int64_t digits = int64_t{1} << digit_bits;
  const uint64_t mask = digits - 1;
  std::vector<int64_t> next(workers * digits);
  for_each_block(workers, count, [&](int worker, int64_t begin, int64_t end) {
    int64_t* histogram = next.data() + worker * digits;
    for (int64_t i = begin; i < end; ++i) ++histogram[(values[i] >> shift) & mask];
  });
  int64_t position = 0;
  for (int64_t digit = 0; digit < digits; ++digit) {
    for (int worker = 0; worker < workers; ++worker) {
      const int64_t size = next[worker * digits + digit];
      next[worker * digits + digit] = position;
      position += size;
    }
  }
  for_each_block(workers, count, [&](int worker, int64_t begin, int64_t end) {
    int64_t* slot = next.data() + worker * digits;
    for (int64_t i = begin; i < end; ++i) sorted[slot[(values[i] >> shift) & mask]++] = values[i];
  });
}

}  // namespace

void radix_sort(std::vector<uint64_t>& values, int first_bit, int key_bits, int threads) {
  const int64_t count = static_cast<int64_t>(values.size());
  const int workers = worker_count(threads, count, kValuesPerWorker);
  const int passes = (key_bits + kMaxDigitBits - 1) / kMaxDigitBits;
  std::vector<uint64_t> other(values.size());
  for (int pass = 0; pass < passes; ++pass) {
    const int begin = key_bits * pass / passes;
    const int end = key_bits * (pass + 1) / passes;
    sort_by_digit(values.data(), other.data(), count, first_bit + begin, end - begin, workers);
    values.swap(other);
  }
}

}  // namespace perception3d
