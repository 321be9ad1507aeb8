#include "testing/machine.h"

#include <link.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace perception3d {
namespace simt {
namespace {

constexpr size_t kMostShared = 227 * 1024;
constexpr size_t kMostStaticShared = 48 * 1024;
constexpr size_t kBetweenVariables = 256;  // bytes of the arena that belong to no variable
constexpr size_t kArenaBytes = 1 << 20;

struct Image {
  uintptr_t begin = 0, end = 0;
};

// Finds where the library that holds this function is loaded.
int find_image(dl_phdr_info* info, size_t, void* data) {
  const uintptr_t here = reinterpret_cast<uintptr_t>(&find_image);
  Image image{UINTPTR_MAX, 0};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    image.begin = std::min(image.begin, begin);
    image.end = std::max(image.end, begin + info->dlpi_phdr[i].p_memsz);
  }
  if (here < image.begin || here >= image.end) return 0;
  *static_cast<Image*>(data) = image;
  return 1;
}

void run_thread() { machine().run_body(); }

std::string describe(const char* what, uint3 index) {
  std::ostringstream text;
  text << what << " (" << index.x << ", " << index.y << ", " << index.z << ")";
  return text.str();
}

std::string describe(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

}  // namespace

Machine::Machine() : storage_(new unsigned char[kArenaBytes + 256]) {
  arena_ = storage_.get() + 256 - reinterpret_cast<uintptr_t>(storage_.get()) % 256;
  Image image;
  dl_iterate_phdr(find_image, &image);
  image_begin_ = image.begin;
  image_end_ = image.end;
}

Machine& machine() {
  static Machine* only = new Machine;  // never destroyed: threads of torch may outlive main()
  return *only;
}

std::string Machine::refusal() const {
  const Grid grid = launch_.grid;
  const dim3 block = launch_.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  std::ostringstream text;
  text << launch_.kernel << ": ";
  if (threads < 1 || threads > kMostThreads || block.z > 64) {
    text << "a block must have 1 to 1024 threads, at most 64 of them along z, got " << block.x
         << " x " << block.y << " x " << block.z;
  } else if (grid.refusal() != nullptr) {
    text << grid.refusal() << ", got " << grid.x << " x " << grid.y << " x " << grid.z;
  } else if (launch_.shared_bytes > kMostShared) {
    text << "a block may have " << kMostShared << " bytes of shared memory, got "
         << launch_.shared_bytes;
  } else {
    return {};
  }
  return text.str();
}

Status Machine::run(const Launch& launch) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  if (launch.grid.is_empty()) return nullptr;
  launch_ = launch;
  report_ = refusal();
  if (!report_.empty()) return report_.c_str();

  const size_t buffers = memory_map().count();
  memory_map().add(launch.parameters, launch.parameter_bytes,
                   {"the parameters of the kernel", 16, false, true, false});
  if (launch.shared_bytes > 0) {
    memory_map().add(arena_, launch.shared_bytes, {"dynamic shared memory", 2, true, false, true});
  }
  arena_used_ = launch.shared_bytes + kBetweenVariables;
  static_shared_ = 0;
  shared_.clear();
  num_threads_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  warp_order_ = order_of(num_warps());
  lane_order_ = order_of(32);
  accessor_.launch_start = ++phase_;
  blockDim = launch.block;
  const uint32_t x = static_cast<uint32_t>(launch.grid.x), y = static_cast<uint32_t>(launch.grid.y);
  const uint32_t z = static_cast<uint32_t>(launch.grid.z);
  gridDim = dim3(x, y, z);
  for (const uint32_t block : order_of(x * y * z)) {
    run_block({block % x, block / x % y, block / x / y});
    if (!report_.empty()) break;
  }
  memory_map().drop_to(buffers);
  return report_.empty() ? nullptr : report_.c_str();
}

std::vector<uint32_t> Machine::order_of(uint32_t count) const {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule_ == 1) std::reverse(order.begin(), order.end());
  if (schedule_ > 1) std::shuffle(order.begin(), order.end(), std::mt19937(schedule_));
  return order;
}

void Machine::run_block(uint3 index) {
  blockIdx = index;
  accessor_.block_start = accessor_.phase = ++phase_;
  accessor_.ordered = false;
  std::fill(std::begin(warp_phase_), std::end(warp_phase_), 0);
  const dim3 block = launch_.block;
  for (int i = 0; i < num_threads_; ++i) {
    threads_[i] = Thread{};
    threads_[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    fibers_.prepare(i, run_thread);
  }
  while (report_.empty()) {
    for (const uint32_t warp : warp_order_) {
      run_warp(static_cast<int>(warp));
      if (!report_.empty()) return;
    }
    const auto ended = [](const Thread& thread) { return thread.state == State::kEnded; };
    const int64_t gone = std::count_if(threads_, threads_ + num_threads_, ended);
    if (gone == num_threads_) return;
    if (gone > 0) return report_barrier();
    release_barrier();
  }
}

// Runs the lanes of a warp until all have ended or wait at the barrier of the block.
void Machine::run_warp(int warp) {
  bool moved = true;
  while (moved) {
    moved = false;
    for (const uint32_t lane : lane_order_) {
      const int thread = 32 * warp + static_cast<int>(lane);
      if (thread >= num_threads_ || threads_[thread].state != State::kReady) continue;
      resume(thread);
      if (!report_.empty()) return;
      moved = true;
    }
  }
  for (int thread = 32 * warp; thread < std::min(32 * warp + 32, num_threads_); ++thread) {
    if (threads_[thread].state == State::kAtCollective) return report_stuck(thread);
  }
}

void Machine::resume(int thread) {
  current_ = thread;
  threadIdx = threads_[thread].index;
  accessor_.thread = static_cast<uint16_t>(thread);
  accessor_.warp_phase = warp_phase_[thread / 32];
  accessor_.stack_begin = fibers_.stack_begin(thread);
  in_kernel_ = true;
  fibers_.resume(thread);
  in_kernel_ = false;
}

void Machine::run_body() {
  launch_.body(launch_.parameters);
  in_kernel_ = false;
  threads_[current_].state = State::kEnded;
  fibers_.suspend();
}

void Machine::warp_collective(const char* name, Site site, uint32_t mask, Combine combine,
                              Payload& payload) {
  in_kernel_ = false;
  const int me = current_, first = me & ~31;
  if ((mask >> (me & 31) & 1u) == 0) {
    fail(std::string(name) + " with a mask that does not name this lane, at " + describe(site));
  }
  threads_[me].state = State::kAtCollective;
  threads_[me].site = site;
  threads_[me].name = name;
  threads_[me].mask = mask;
  brought_[me] = payload;
  bool all_here = true;
  for_each_lane(mask, [&](int lane) {
    const Thread& other = threads_[first + lane];
    all_here = all_here && first + lane < num_threads_ && other.state == State::kAtCollective &&
               other.mask == mask && other.name == name;
  });
  if (all_here) {
    const char* wrong = combine(mask, brought_ + first, taken_ + first);
    if (wrong != nullptr) fail(std::string(name) + ": " + wrong + ", at " + describe(site));
    for_each_lane(mask, [&](int lane) { threads_[first + lane].state = State::kReady; });
  } else {
    fibers_.suspend();
  }
  payload = taken_[me];
  in_kernel_ = true;
}

void Machine::warp_barrier(Site site, uint32_t mask) {
  Payload nothing{};
  const auto combine = [](uint32_t, const Payload*, Payload*) -> const char* {
    ++machine().warp_phase_[machine().current_ / 32];
    return nullptr;
  };
  warp_collective("__syncwarp", site, mask, combine, nothing);
  accessor_.warp_phase = warp_phase_[current_ / 32];
}

int Machine::block_barrier(Site site, bool vote) {
  in_kernel_ = false;
  threads_[current_].state = State::kAtBarrier;
  threads_[current_].site = site;
  threads_[current_].vote = vote;
  fibers_.suspend();
  in_kernel_ = true;
  return votes_;
}

// All threads wait at the barrier of the block: at the same line, or it is not the same barrier.
void Machine::release_barrier() {
  const Site site = threads_[0].site;
  votes_ = 0;
  for (int i = 0; i < num_threads_; ++i) {
    if (threads_[i].site.line != site.line || threads_[i].site.file != site.file) {
      return report(i, "waits at " + describe(threads_[i].site) + " while thread 0 waits at " +
                           describe(site) + ": divergent __syncthreads");
    }
    votes_ += threads_[i].vote;
    threads_[i].state = State::kReady;
  }
  accessor_.phase = ++phase_;
  std::fill(std::begin(warp_phase_), std::end(warp_phase_), 0);
}

void Machine::start_copy(void* target, const void* source) {
  constexpr size_t kBytes = 16;
  check(source, kBytes, kBytes, Access::kRead);
  check(target, kBytes, kBytes, Access::kWrite);
  in_kernel_ = false;
  std::memset(target, 0xff, kBytes);  // neither the old nor the new bytes may be relied on
  threads_[current_].copies.push_back({target, source, threads_[current_].groups});
  in_kernel_ = true;
}

void Machine::commit_copies() { ++threads_[current_].groups; }

void Machine::wait_for_copies(int later) {
  in_kernel_ = false;
  Thread& thread = threads_[current_];
  const auto done = [&](const Copy& copy) { return copy.group < thread.groups - later; };
  for (const Copy& copy : thread.copies) {
    if (done(copy)) std::memcpy(copy.target, copy.source, 16);
  }
  thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), done),
                      thread.copies.end());
  in_kernel_ = true;
}

void* Machine::shared_variable(const void* key, const char* name, size_t bytes, size_t granule) {
  in_kernel_ = false;
  const auto found = shared_.find(key);
  if (found != shared_.end()) {
    in_kernel_ = true;
    return arena_ + found->second;
  }
  const size_t begin = (arena_used_ + 15) / 16 * 16;
  static_shared_ += (bytes + 15) / 16 * 16;
  if (static_shared_ > kMostStaticShared) {
    fail("P3D_SHARED variables of more than 48 KB: use dynamic_shared()");
  }
  if (static_shared_ + launch_.shared_bytes > kMostShared) {
    fail("a block has 227 KB of shared memory");
  }
  arena_used_ = begin + bytes + kBetweenVariables;
  shared_[key] = begin;
  memory_map().add(arena_ + begin, bytes, {name, granule, true, false, true});
  in_kernel_ = true;
  return arena_ + begin;
}

void* Machine::dynamic_shared() { return arena_; }

void Machine::check(const void* address, size_t bytes, size_t alignment, Access access) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  if (begin - accessor_.stack_begin < kStackBytes) return;
  if (begin - image_begin_ < image_end_ - image_begin_) {
    if (access != Access::kRead) fail("writes to a variable of the program");
    return;
  }
  in_kernel_ = false;
  if (access == Access::kAtomic) accessor_.ordered = true;
  const std::string wrong = memory_map().check(address, bytes, alignment, access, accessor_);
  if (!wrong.empty()) fail(wrong);
  in_kernel_ = true;
}

void Machine::fail(const std::string& what) {
  in_kernel_ = false;
  report(current_, what);
  threads_[current_].state = State::kEnded;
  fibers_.suspend();  // for good: a report ends the launch
  __builtin_unreachable();
}

void Machine::report(int thread, const std::string& what) {
  if (!report_.empty()) return;
  report_ = launch_.kernel + ", " + describe("block", blockIdx) + ", " +
            describe("thread", threads_[thread].index) + ": " + what;
}

// A lane waits in a collective that can no longer complete: tell whom it misses.
void Machine::report_stuck(int thread) {
  const Thread& stuck = threads_[thread];
  std::string missing = "lanes of its mask";
  for_each_lane(stuck.mask, [&](int lane) {
    const int index = (thread & ~31) + lane;
    const std::string who = "lane " + std::to_string(lane);
    if (index >= num_threads_) {
      missing = who + ", which the block does not have";
    } else if (threads_[index].state == State::kEnded) {
      missing = who + ", which has ended";
    } else if (threads_[index].state == State::kAtBarrier) {
      missing = who + ", which waits in __syncthreads at " + describe(threads_[index].site);
    } else if (threads_[index].mask != stuck.mask || threads_[index].name != stuck.name) {
      missing = who + ", which waits in " + threads_[index].name + " at " +
                describe(threads_[index].site) +
                (threads_[index].mask != stuck.mask ? " with another mask" : "");
    }
  });
  report(thread,
         std::string("waits in ") + stuck.name + " at " + describe(stuck.site) + " for " + missing);
}

// Some threads wait at the barrier of the block, and others have ended.
void Machine::report_barrier() {
  int waiting = 0, gone = 0;
  for (int i = num_threads_ - 1; i >= 0; --i) {
    (threads_[i].state == State::kEnded ? gone : waiting) = i;
  }
  report(waiting, "waits in __syncthreads at " + describe(threads_[waiting].site) + ", but " +
                      describe("thread", threads_[gone].index) + " has ended without coming there");
}

}  // namespace simt
}  // namespace perception3d
