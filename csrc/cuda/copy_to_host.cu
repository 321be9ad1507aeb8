#include "common/launch.cuh"
#include "cuda/copy_to_host.h"

namespace perception3d {

Status copy_number_to_host(const int64_t* source, int64_t* target, Stream stream) {
  return copy_to_host(target, source, sizeof(*target), stream);
}

}  // namespace perception3d
