#include "binding/cpu/result_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>

#include "common/huge_pages.h"

namespace perception3d {
namespace {

// The C library keeps smaller pieces itself.
constexpr int64_t kFewestBytes = int64_t{1} << 20;
constexpr int64_t kDefaultMib = 512;
// Sizes are rounded up, from 16 large pages on by up to 1 / kSteps, and a kept block may be longer
// by as much again: no cloud has the size of the last one.
constexpr int64_t kSteps = 8;

int64_t kept_limit() {
#ifdef __SANITIZE_ADDRESS__  // nobody would notice who writes to a result that was freed
  return 0;
#endif
  const char* text = std::getenv("P3D_KEEP_MIB");
  if (text == nullptr) return kDefaultMib << 20;
  char* end = nullptr;
  const int64_t mib = std::strtoll(text, &end, 10);
  if (end == text || *end != '\0' || mib < 0 || mib > INT64_MAX >> 20) {
    throw std::invalid_argument(
        "P3D_KEEP_MIB, the memory kept for results, must be a whole number of mebibytes, 0 for "
        "none, got '" +
        std::string(text) + "'");
  }
  return mib << 20;
}

int64_t rounded(int64_t bytes) {
  int64_t step = kHugePage;
  while (step * kSteps * 2 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

// Room for `bytes` bytes, rounded.  The system chooses the place; what is there before and after
// whole pages goes back.  What rounding added is not in large pages: it may never be touched.
ResultBlock map_block(int64_t bytes) {
  const int64_t size = rounded(bytes);
  void* found =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) return {nullptr, 0};
  char* first = static_cast<char*>(found);
  const int64_t before = -reinterpret_cast<intptr_t>(first) & (kHugePage - 1);
  if (before > 0) munmap(first, before);
  munmap(first + before + size, kHugePage - before);
  prefer_huge_pages(first + before, bytes);
  return {first + before, size};
}

struct KeptBlocks {
  std::mutex lock;
  const int64_t limit = kept_limit();

  ResultBlock take(int64_t bytes) {
    auto best = blocks_.end();
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      const bool fits = block->bytes >= bytes && block->bytes <= bytes + bytes / kSteps;
      if (fits && (best == blocks_.end() || block->bytes < best->bytes)) best = block;
    }
    if (best == blocks_.end()) return {nullptr, 0};
    const ResultBlock found = *best;
    blocks_.erase(best);
    bytes_ -= found.bytes;
    return found;
  }

  void keep(const ResultBlock& block) {
    blocks_.push_back(block);
    bytes_ += block.bytes;
    while (bytes_ > limit) {
      const ResultBlock oldest = blocks_.front();
      blocks_.pop_front();
      bytes_ -= oldest.bytes;
      munmap(oldest.memory, oldest.bytes);
    }
  }

 private:
  std::deque<ResultBlock> blocks_;  // the one given back last comes last
  int64_t bytes_ = 0;
};

// Never destroyed: results may outlive everything that is.
KeptBlocks& kept_blocks() {
  static KeptBlocks& blocks = *new KeptBlocks;
  return blocks;
}

}  // namespace

// Whoever finds the lock taken does without: in a forked process nobody may be left to open it.
ResultBlock take_result_memory(int64_t bytes) {
  KeptBlocks& kept = kept_blocks();
  if (bytes < kFewestBytes || bytes > INT64_MAX / 2 || kept.limit == 0) return {nullptr, 0};
  if (const std::unique_lock<std::mutex> held(kept.lock, std::try_to_lock); held) {
    const ResultBlock found = kept.take(rounded(bytes));
    if (found.memory != nullptr) return found;
  }
  return map_block(bytes);
}

void give_back_result_memory(const ResultBlock& block) {
  KeptBlocks& kept = kept_blocks();
  if (const std::unique_lock<std::mutex> held(kept.lock, std::try_to_lock); held) {
    kept.keep(block);
  } else {
    munmap(block.memory, block.bytes);
  }
}

}  // namespace perception3d
