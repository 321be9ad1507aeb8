#include "testing/memory_check.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace perception3d {
namespace simt {
namespace {

// Readers of a cell: one thread, several lanes of one warp, or threads of several warps.
constexpr uint16_t kLanesOfWarp = 0x4000;
constexpr uint16_t kSeveralWarps = 0x7fff;
constexpr uint16_t kAtomicWriter = 0x8000;
constexpr uint32_t kWrittenByHost = 1;  // a phase before all others
constexpr uintptr_t kFarAway = 1 << 16;

int warp_of(uint16_t toucher) {
  const int plain = toucher & ~kAtomicWriter;
  if (plain == kSeveralWarps) return -1;
  return plain & kLanesOfWarp ? plain & ~kLanesOfWarp : plain / 32;
}

// Whether an access that another thread made in `phase` is certain to come before one of `who`.
bool is_ordered(uint32_t phase, uint16_t toucher, uint16_t warp_phase, bool of_block,
                const Accessor& who) {
  if (phase == who.phase) {
    return (toucher & ~kAtomicWriter) == who.thread ||
           (warp_of(toucher) == who.thread / 32 && warp_phase < who.warp_phase);
  }
  if (of_block || phase >= who.block_start || phase < who.launch_start) return true;
  // Another block of the launch.  "The last block to arrive" is told by an atomic; what a block
  // does after one counts as ordered, which is generous, not exact.
  return who.ordered;
}

const char* verb(Access access) {
  return access == Access::kRead ? "reads" : access == Access::kWrite ? "writes" : "updates";
}

}  // namespace

void MemoryMap::Free::operator()(Cell* cells) const { std::free(cells); }

void MemoryMap::add(const void* begin, size_t bytes, BufferKind kind) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const size_t cells = bytes / kind.granule + 1;
  Buffer buffer{address, address + bytes, std::move(kind), nullptr};
  // calloc hands out pages that are zero until they are touched: large buffers cost nothing.
  buffer.cells.reset(static_cast<Cell*>(std::calloc(cells, sizeof(Cell))));
  buffers_.push_back(std::move(buffer));
}

void MemoryMap::drop_to(size_t count) {
  buffers_.resize(std::min(count, buffers_.size()));
  last_found_ = 0;
}

bool MemoryMap::holds(const void* begin, size_t bytes, bool to_write) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const Buffer* buffer = find(address);
  if (buffer == nullptr || address + bytes > buffer->end) return false;
  if (to_write || buffer->kind.initialized) return !to_write || buffer->kind.writable;
  const size_t granule = buffer->kind.granule;
  const size_t last = address + bytes - buffer->begin;
  for (size_t i = (address - buffer->begin) / granule; i * granule < last; ++i) {
    if (buffer->cells[i].write_phase == 0) return false;
  }
  return true;
}

void MemoryMap::mark_written(const void* begin, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  Buffer* buffer = find(address);
  if (buffer == nullptr) return;
  const size_t granule = buffer->kind.granule;
  const size_t last = std::min(address + bytes, buffer->end) - buffer->begin;
  for (size_t i = (address - buffer->begin) / granule; i * granule < last; ++i) {
    buffer->cells[i].write_phase = std::max(buffer->cells[i].write_phase, kWrittenByHost);
  }
}

MemoryMap::Buffer* MemoryMap::find(uintptr_t address) {
  if (last_found_ < buffers_.size()) {
    Buffer& buffer = buffers_[last_found_];
    if (address >= buffer.begin && address < buffer.end) return &buffer;
  }
  for (size_t i = buffers_.size(); i-- > 0;) {  // views of one tensor: the latest counts
    if (address >= buffers_[i].begin && address < buffers_[i].end) {
      last_found_ = i;
      return &buffers_[i];
    }
  }
  return nullptr;
}

std::string MemoryMap::describe_outside(uintptr_t address, size_t bytes, Access access) const {
  std::ostringstream text;
  text << verb(access) << " " << bytes << " bytes ";
  const Buffer* nearest = nullptr;
  uintptr_t distance = kFarAway;
  for (const Buffer& buffer : buffers_) {
    const uintptr_t before = buffer.begin > address ? buffer.begin - address : 0;
    const uintptr_t behind = address + bytes > buffer.end ? address + bytes - buffer.end : 0;
    if (before + behind >= distance) continue;
    distance = before + behind;
    nearest = &buffer;
  }
  if (nearest == nullptr) {
    text << "at " << reinterpret_cast<void*>(address) << ", which lies in no buffer of the launch";
  } else {
    text << "at byte " << static_cast<int64_t>(address - nearest->begin) << " of "
         << nearest->kind.name << ", which has " << nearest->end - nearest->begin << " bytes";
  }
  return text.str();
}

const char* MemoryMap::fault(const Buffer& buffer, const Cell& cell, Access access,
                             const Accessor& who) {
  const bool of_block = buffer.kind.of_block;
  const bool written = cell.write_phase >= (of_block ? who.block_start : 1);
  if (!written && !buffer.kind.initialized && access != Access::kWrite) {
    return ", which nobody has written";
  }
  const bool both_atomic = access == Access::kAtomic && (cell.writer & kAtomicWriter) != 0;
  if (cell.write_phase > kWrittenByHost && !both_atomic &&
      !is_ordered(cell.write_phase, cell.writer, cell.write_warp_phase, of_block, who)) {
    return ", which another thread wrote; no barrier comes between";
  }
  if (access != Access::kRead && cell.read_phase > 0 &&
      !is_ordered(cell.read_phase, cell.reader, cell.read_warp_phase, of_block, who)) {
    return ", which another thread read; no barrier comes between";
  }
  return nullptr;
}

void MemoryMap::record(Cell& cell, Access access, const Accessor& who) {
  if (access != Access::kRead) {
    cell.write_phase = who.phase;
    cell.writer = who.thread | (access == Access::kAtomic ? kAtomicWriter : 0);
    cell.write_warp_phase = who.warp_phase;
    return;
  }
  const bool alone = cell.read_phase != who.phase || cell.reader == who.thread;
  if (alone) {
    cell.reader = who.thread;
  } else if (warp_of(cell.reader) == who.thread / 32) {
    cell.reader = static_cast<uint16_t>(kLanesOfWarp | (who.thread / 32));
  } else {
    cell.reader = kSeveralWarps;
  }
  cell.read_phase = who.phase;
  cell.read_warp_phase = who.warp_phase;
}

std::string MemoryMap::check(const void* address, size_t bytes, size_t alignment, Access access,
                             const Accessor& who) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  Buffer* buffer = find(begin);
  if (buffer == nullptr || begin + bytes > buffer->end) {
    return describe_outside(begin, bytes, access);
  }
  const BufferKind& kind = buffer->kind;
  if (begin % alignment != 0) {
    return std::string(verb(access)) + " an address of " + kind.name + " that is no multiple of " +
           std::to_string(alignment) + " bytes";
  }
  if (access != Access::kRead && !kind.writable) {
    return std::string(verb(access)) + " " + kind.name + ", which may only be read";
  }
  if (bytes < kind.granule) return {};
  const size_t first = (begin - buffer->begin) / kind.granule;
  const size_t last = (begin + bytes - 1 - buffer->begin) / kind.granule;
  for (size_t i = first; i <= last; ++i) {
    Cell& cell = buffer->cells[i];
    const char* wrong = fault(*buffer, cell, access, who);
    if (wrong != nullptr) {
      return std::string(verb(access)) + " " + kind.name + " at byte " +
             std::to_string(i * kind.granule) + wrong;
    }
    record(cell, access, who);
  }
  return {};
}

MemoryMap& memory_map() {
  static MemoryMap map;
  return map;
}

}  // namespace simt
}  // namespace perception3d
