// The interpreter behind simt.h: one launch at a time, blocks one after another, the threads of a
// block as fibers that take turns at barriers and warp collectives.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/launch.cuh"
#include "testing/fiber.h"
#include "testing/memory_check.h"

namespace perception3d {
namespace simt {

constexpr int kMostThreads = 1024;

enum class State { kReady, kAtCollective, kAtBarrier, kEnded };

struct Copy {
  void* target;
  const void* source;
  int group;  // of the thread, counted from 0
};

struct Thread {
  State state = State::kReady;
  uint3 index{};
  Site site{};            // where it waits,
  const char* name = "";  // for which collective,
  uint32_t mask = 0;      // with whom
  bool vote = false;
  std::vector<Copy> copies{};  // under way, oldest first
  int groups = 0;              // of copies, committed so far
};

struct Launch {
  std::string kernel;
  Grid grid{0};
  dim3 block;
  size_t shared_bytes;
  void (*body)(const void*);
  const void* parameters;
  size_t parameter_bytes;
};

class Machine {
 public:
  Machine();

  // Null or the report, which lives until the next launch.
  Status run(const Launch& launch);

  // Called by the running thread.
  void warp_collective(const char* name, Site site, uint32_t mask, Combine combine,
                       Payload& payload);
  void warp_barrier(Site site, uint32_t mask);
  int block_barrier(Site site, bool vote);
  void start_copy(void* target, const void* source);
  void commit_copies();
  void wait_for_copies(int later);
  void* shared_variable(const void* key, const char* name, size_t bytes, size_t granule);
  void* dynamic_shared();
  void check(const void* address, size_t bytes, size_t alignment, Access access);
  [[noreturn]] void fail(const std::string& what);
  // First and last thing that a thread does.
  void run_body();

  // Whether a thread of a kernel runs, not the host and not the machine itself.
  bool in_kernel() const { return in_kernel_; }
  // To be called before anything else by what a kernel calls: templates of the standard library may
  // be linked as the checked code of a kernel source.
  void leave_kernel() { in_kernel_ = false; }
  // 0: blocks, warps and lanes in ascending order; 1: descending; more: shuffled.
  void set_schedule(int schedule) { schedule_ = schedule; }

  std::recursive_mutex lock;

 private:
  std::string refusal() const;
  void run_block(uint3 index);
  void run_warp(int warp);
  void resume(int thread);
  void release_barrier();
  void report(int thread, const std::string& what);
  void report_stuck(int thread);
  void report_barrier();
  int num_warps() const { return (num_threads_ + 31) / 32; }
  std::vector<uint32_t> order_of(uint32_t count) const;

  FiberPool fibers_;
  std::unique_ptr<unsigned char[]> storage_;
  unsigned char* arena_;                       // shared memory
  uintptr_t image_begin_ = 0, image_end_ = 0;  // this library: constants, threadIdx and the like
  int schedule_ = 0;

  Launch launch_;
  std::string report_;
  bool in_kernel_ = false;
  int num_threads_ = 0;
  std::vector<uint32_t> warp_order_, lane_order_;
  std::unordered_map<const void*, size_t> shared_;  // where in the arena each variable begins
  size_t arena_used_ = 0, static_shared_ = 0;

  int current_ = 0;
  int votes_ = 0;
  Accessor accessor_{};
  uint32_t phase_ = 1;
  Thread threads_[kMostThreads];
  Payload brought_[kMostThreads], taken_[kMostThreads];
  uint16_t warp_phase_[kMostThreads / 32] = {};
};

Machine& machine();

}  // namespace simt
}  // namespace perception3d
