// The functions of simt.h, on the one machine, and what the compiler's instrumentation calls.
#include "common/launch.cuh"
#include "testing/machine.h"

namespace perception3d {
namespace simt {
namespace {

// "kernel<float, 4>, grid, block, ..." up to the first comma between arguments.
std::string first_argument(const char* arguments) {
  int depth = 0;
  std::string name;
  for (const char* c = arguments; *c != '\0'; ++c) {
    if (*c == ',' && depth == 0) break;
    depth += (*c == '<' || *c == '(') - (*c == '>' || *c == ')');
    name += *c;
  }
  return name;
}

}  // namespace

Status run(const char* name, Grid grid, dim3 block, size_t shared_bytes, void (*body)(const void*),
           const void* parameters, size_t parameter_bytes) {
  return machine().run(
      {first_argument(name), grid, block, shared_bytes, body, parameters, parameter_bytes});
}

void warp_collective(const char* name, Site site, uint32_t mask, Combine combine,
                     Payload& payload) {
  machine().warp_collective(name, site, mask, combine, payload);
}

void warp_barrier(Site site, uint32_t mask) { machine().warp_barrier(site, mask); }

int block_barrier(Site site, bool vote) { return machine().block_barrier(site, vote); }

void check_atomic(const void* address, size_t bytes) {
  machine().check(address, bytes, bytes, Access::kAtomic);
}

void start_copy(void* target, const void* source) { machine().start_copy(target, source); }
void commit_copies() { machine().commit_copies(); }
void wait_for_copies(int later) { machine().wait_for_copies(later); }

void fail(const char* what) {
  machine().leave_kernel();
  machine().fail(what);
}

void* shared_variable(const void* key, const char* name, size_t bytes, size_t granule) {
  return machine().shared_variable(key, name, bytes, granule);
}

void* dynamic_shared_memory() { return machine().dynamic_shared(); }

Status host_reads(const void* begin, size_t bytes) {
  if (bytes == 0 || memory_map().holds(begin, bytes, false)) return nullptr;
  return "a device-wide function reads outside its buffer, or what nobody has written";
}

Status host_writes(void* begin, size_t bytes) {
  if (bytes == 0) return nullptr;
  if (!memory_map().holds(begin, bytes, true)) {
    return "a device-wide function writes outside its buffer, or to an input";
  }
  memory_map().mark_written(begin, bytes);
  return nullptr;
}

}  // namespace simt

void check_index(int64_t index, int64_t count, const char* what) {
  if (index >= 0 && index < count) return;
  simt::machine().leave_kernel();
  simt::machine().fail(std::string(what) + " must be in 0.." + std::to_string(count - 1) +
                       ", got " + std::to_string(index));
}

Status fill_bytes(void* target, int byte, size_t count, Stream) {
  const Status status = simt::host_writes(target, count);
  if (status == nullptr && count > 0) std::memset(target, byte, count);
  return status;
}

Status copy_to_host(void* target, const void* source, size_t count, Stream) {
  const Status status = simt::host_reads(source, count);
  if (status == nullptr && count > 0) std::memcpy(target, source, count);
  return status;
}

}  // namespace perception3d

// Called before every load and store of code that is compiled with -fsanitize=thread; outside a
// launch that is host code, which is free to do as it likes.
using perception3d::simt::Access;
namespace {
inline void check(const void* address, size_t bytes, size_t alignment, Access access) {
  if (!perception3d::simt::machine().in_kernel()) return;
  perception3d::simt::machine().check(address, bytes, alignment, access);
}
}  // namespace

extern "C" {
#define P3D_HOOKS(bytes)                                                                        \
  void __tsan_read##bytes(void* address) { check(address, bytes, bytes, Access::kRead); }       \
  void __tsan_write##bytes(void* address) { check(address, bytes, bytes, Access::kWrite); }     \
  void __tsan_unaligned_read##bytes(void* address) { check(address, bytes, 1, Access::kRead); } \
  void __tsan_unaligned_write##bytes(void* address) { check(address, bytes, 1, Access::kWrite); }
P3D_HOOKS(1)
P3D_HOOKS(2)
P3D_HOOKS(4)
P3D_HOOKS(8)
P3D_HOOKS(16)
#undef P3D_HOOKS
void __tsan_read_range(void* address, size_t bytes) { check(address, bytes, 1, Access::kRead); }
void __tsan_write_range(void* address, size_t bytes) { check(address, bytes, 1, Access::kWrite); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
