// What kernels under the interpreter may read and write, and who touched it last.
//
// Kernel sources are compiled with the instrumentation of -fsanitize=thread, which calls a function
// before every load and store; memory_check.cpp holds these functions in place of the sanitizer's
// library.  So every access of every thread is held against the buffers that the launch may use, to
// the byte, and against earlier accesses of other threads that no barrier separates from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace perception3d {
namespace simt {

enum class Access { kRead, kWrite, kAtomic };

// Who accesses memory: set by the scheduler before it resumes a thread.
struct Accessor {
  uint32_t launch_start;  // phase in which this launch began
  uint32_t block_start;   // phase in which this block began
  uint32_t phase;         // grows with every block and every barrier of a block; never 0
  uint16_t thread;        // number inside the block
  uint16_t warp_phase;    // grows with every __syncwarp of the warp, from 0 in each phase
  bool ordered;           // whether a thread of the block used an atomic: see is_ordered()
  uintptr_t stack_begin;
};

struct BufferKind {
  std::string name;
  size_t granule;  // bytes that belong together: the alignment of its elements
  bool writable;
  bool initialized;  // false: what was never written must not be read
  bool of_block;     // shared memory: begins anew with every block
};

class MemoryMap {
 public:
  // Buffers are registered and dropped like a stack.
  void add(const void* begin, size_t bytes, BufferKind kind);
  size_t count() const { return buffers_.size(); }
  void drop_to(size_t count);
  // Whether these bytes lie in one buffer and may be written, or have been written so far.
  bool holds(const void* begin, size_t bytes, bool to_write);
  // The host wrote these bytes: they count as initialised.
  void mark_written(const void* begin, size_t bytes);

  // Empty, or what is wrong with this access.
  std::string check(const void* address, size_t bytes, size_t alignment, Access access,
                    const Accessor& who);

 private:
  struct Cell {
    uint32_t write_phase, read_phase;
    uint16_t writer, reader;
    uint16_t write_warp_phase, read_warp_phase;
  };
  struct Free {
    void operator()(Cell* cells) const;
  };
  struct Buffer {
    uintptr_t begin, end;
    BufferKind kind;
    std::unique_ptr<Cell[], Free> cells;  // one per granule, all zero at first
  };

  Buffer* find(uintptr_t address);
  std::string describe_outside(uintptr_t address, size_t bytes, Access access) const;
  static const char* fault(const Buffer& buffer, const Cell& cell, Access access,
                           const Accessor& who);
  static void record(Cell& cell, Access access, const Accessor& who);

  std::vector<Buffer> buffers_;
  size_t last_found_ = 0;
};

MemoryMap& memory_map();

}  // namespace simt
}  // namespace perception3d
