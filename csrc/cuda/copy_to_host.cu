#include "common/launch.cuh"
#include "cuda/copy_to_host.h"

namespace perception3d {

Status copy_numbers_to_host(const int64_t* source, int64_t count, int64_t* target, Stream stream) {
  return copy_to_host(target, source, static_cast<size_t>(count) * sizeof(int64_t), stream);
}

}  // namespace perception3d
