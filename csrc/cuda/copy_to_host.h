// The one way in which shells look at device memory.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace perception3d {

// Copies numbers and waits for the stream.
Status copy_numbers_to_host(const int64_t* source, int64_t count, int64_t* target, Stream stream);

}  // namespace perception3d
