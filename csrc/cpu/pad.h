// Scratch memory whose vectors never cross a cache line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cpu/vectors.h"

namespace perception3d {

// `width` numbers, filled up to whole vectors.
template <typename Number>
int64_t padded(int64_t width) {
  return (width + kLanesOf<Number> - 1) / kLanesOf<Number> * kLanesOf<Number>;
}

// Zeroed numbers that start on a cache line.
template <typename Number>
class Pad {
 public:
  explicit Pad(int64_t count) {
    const int64_t bytes = padded<Number>(count) * static_cast<int64_t>(sizeof(Number));
    if (bytes == 0) return;
    void* memory = std::aligned_alloc(sizeof(Vector<Number>), bytes);
    if (memory == nullptr) throw std::bad_alloc();
    std::memset(memory, 0, bytes);
    numbers_.reset(static_cast<Number*>(memory));
  }

  Number* get() const { return numbers_.get(); }

 private:
  struct Free {
    void operator()(Number* numbers) const { std::free(numbers); }
  };
  std::unique_ptr<Number[], Free> numbers_;
};

}  // namespace perception3d
