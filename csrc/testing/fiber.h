// Switches between stacks: the threads of a block take turns on one thread of the machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace perception3d {
namespace simt {

constexpr size_t kStackBytes = 128 * 1024;

// Stacks of 1024 fibers in one reservation; pages are taken when they are touched.
class FiberPool {
 public:
  FiberPool();
  // Makes fiber `index` start at `entry` when it is next resumed.
  void prepare(int index, void (*entry)());
  // Runs a fiber until it suspends itself.
  void resume(int index);
  // From inside a fiber: returns to the caller of resume().
  void suspend();

  uintptr_t stack_begin(int index) const;

 private:
  unsigned char* stacks_;
  void* suspended_[1024] = {};  // stack pointer of each fiber
  void* scheduler_ = nullptr;
  int current_ = 0;
};

}  // namespace simt
}  // namespace perception3d
