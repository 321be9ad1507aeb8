#include "testing/fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if !defined(__x86_64__)
#include <ucontext.h>

#include <memory>
#endif

namespace perception3d {
namespace simt {
namespace {

constexpr int kFibers = 1024;
// The lowest page of each stack may not be touched: what overflows stops there.
constexpr size_t kGuardBytes = 4096;

unsigned char* reserve_stacks() {
  void* memory = mmap(nullptr, kFibers * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("perception3d: no address space for the stacks of 1024 threads");
    std::abort();
  }
  for (int i = 0; i < kFibers; ++i) {
    mprotect(static_cast<unsigned char*>(memory) + i * kStackBytes, kGuardBytes, PROT_NONE);
  }
  return static_cast<unsigned char*>(memory);
}

}  // namespace

FiberPool::FiberPool() : stacks_(reserve_stacks()) {}

uintptr_t FiberPool::stack_begin(int index) const {
  return reinterpret_cast<uintptr_t>(stacks_ + index * kStackBytes);
}

#if defined(__x86_64__)

// Saves the registers that a call must keep (System V ABI) on the running stack, and takes up
// another stack where the same was done.  swapcontext() would ask the kernel for the signal mask
// each time, which costs fifty times as much.
extern "C" void p3d_switch_stack(void** from, void* to);
asm(R"(
.text
.p2align 4
.hidden p3d_switch_stack
.globl p3d_switch_stack
.type p3d_switch_stack, @function
p3d_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size p3d_switch_stack, .-p3d_switch_stack
)");

void FiberPool::prepare(int index, void (*entry)()) {
  // As if `entry` had been called from nowhere: six registers, its address, a return address that
  // is never used.  The stack pointer is then 8 off a multiple of 16, as the ABI has it.
  void** top = reinterpret_cast<void**>(stack_begin(index) + kStackBytes - 56);
  top[0] = nullptr;
  top[-1] = reinterpret_cast<void*>(entry);
  for (int i = 2; i <= 7; ++i) top[-i] = nullptr;
  suspended_[index] = top - 7;
}

void FiberPool::resume(int index) {
  current_ = index;
  p3d_switch_stack(&scheduler_, suspended_[index]);
}

void FiberPool::suspend() { p3d_switch_stack(&suspended_[current_], scheduler_); }

#else

void FiberPool::prepare(int index, void (*entry)()) {
  if (suspended_[index] == nullptr) suspended_[index] = new ucontext_t;
  ucontext_t* context = static_cast<ucontext_t*>(suspended_[index]);
  getcontext(context);
  context->uc_stack.ss_sp = stacks_ + index * kStackBytes;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}

void FiberPool::resume(int index) {
  if (scheduler_ == nullptr) scheduler_ = new ucontext_t;
  current_ = index;
  swapcontext(static_cast<ucontext_t*>(scheduler_), static_cast<ucontext_t*>(suspended_[index]));
}

void FiberPool::suspend() {
  swapcontext(static_cast<ucontext_t*>(suspended_[current_]), static_cast<ucontext_t*>(scheduler_));
}

#endif

}  // namespace simt
}  // namespace perception3d
