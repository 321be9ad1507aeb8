// Small kernels that are right or have one fault each: what the interpreter must accept and report.
// tests/simt/test_interpreter.py runs them by name.
#include <cstring>
#include <vector>

#include "common/async_copy.cuh"
#include "common/launch.cuh"
#include "common/mma.cuh"
#include "testing/machine.h"

namespace perception3d {
namespace {

constexpr int kThreads = 64;

// Each thread hands its number to its left neighbour through shared memory.
__global__ void pass_left(int* numbers, bool with_barrier) {
  P3D_SHARED(int, tile, kThreads);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  numbers[blockIdx.x * kThreads + threadIdx.x] = tile[(threadIdx.x + 1) % kThreads];
}

// The second round writes what the first may still read.
__global__ void reuse_too_early(int* numbers) {
  P3D_SHARED(int, tile, kThreads);
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = round;
    __syncthreads();
    numbers[threadIdx.x] = tile[(threadIdx.x + 1) % kThreads];
  }
}

__global__ void barrier_of_some(int* numbers) {
  if (threadIdx.x < 40) __syncthreads();
  numbers[threadIdx.x] = 1;
}

__global__ void barrier_in_two_places(int* numbers) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  numbers[threadIdx.x] = 1;
}

__global__ void touch_shared(int* numbers, int offset) {
  P3D_SHARED(int, tile, kThreads);
  const int place = static_cast<int>(threadIdx.x) + offset;
  tile[place] = 1;
  __syncthreads();
  numbers[threadIdx.x] = tile[place];
}

__global__ void touch_dynamic(int* numbers) {
  int* tile = dynamic_shared<int>();
  tile[threadIdx.x] = 1;
  __syncthreads();
  numbers[threadIdx.x] = tile[threadIdx.x];
}

__global__ void read_unwritten(int* numbers) {
  P3D_SHARED(int, tile, kThreads);
  if (threadIdx.x != 7) tile[threadIdx.x] = 1;
  __syncthreads();
  numbers[threadIdx.x] = tile[threadIdx.x];
}

__global__ void write_global(int* numbers, int offset) {
  numbers[static_cast<int>(threadIdx.x) + offset] = 1;
}

__global__ void read_global(const int* input, int* numbers, int offset) {
  numbers[threadIdx.x] = input[threadIdx.x + offset];
}

__global__ void write_input(int* input) { input[threadIdx.x] = 1; }

__global__ void write_same_place(int* numbers) { numbers[0] = static_cast<int>(blockIdx.x); }

__global__ void shuffle_with(int* numbers, unsigned mask, int source) {
  numbers[threadIdx.x] = __shfl_sync(mask, static_cast<int>(threadIdx.x), source);
}

__global__ void shuffle_of_some(int* numbers) {
  if (threadIdx.x % 32 == 5) return;
  numbers[threadIdx.x] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 0);
}

__global__ void shuffle_against_barrier(int* numbers) {
  if (threadIdx.x % 32 == 5) __syncthreads();
  numbers[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
  if (threadIdx.x % 32 != 5) __syncthreads();
}

// Warp collectives of every kind, in full and half warps; numbers[t] = 1 where all are right.
__global__ void warp_functions(int* numbers) {
  const unsigned all = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  bool right = __shfl_sync(all, lane, 3) == 3;
  right = right && __shfl_sync(all, 2.5 * lane, 1, 8) == 2.5 * (lane / 8 * 8 + 1);
  right = right && __shfl_xor_sync(all, lane, 16) == (lane ^ 16);
  right = right && __shfl_up_sync(all, lane, 2u) == (lane < 2 ? lane : lane - 2);
  right = right && __shfl_down_sync(all, lane, 1u, 4) == (lane % 4 == 3 ? lane : lane + 1);
  right = right && __ballot_sync(all, lane % 2) == 0xaaaaaaaau;
  right = right && __any_sync(all, lane == 9) && !__all_sync(all, lane != 9);
  right = right && __reduce_add_sync(all, lane) == 496 && __reduce_max_sync(all, lane) == 31;
  right = right && __match_any_sync(all, lane / 16) == (lane < 16 ? 0xffffu : 0xffff0000u);
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  for (int step = 0; step < 3 + lane / 16; ++step) {  // the halves part ways
    right =
        right && __shfl_sync(half, lane + step, lane < 16 ? 4 : 20) == lane / 16 * 16 + 4 + step;
  }
  __syncwarp();
  right = right && __syncthreads_count(lane == 0) == kThreads / 32;
  right = right && __syncthreads_or(lane == 3) && !__syncthreads_and(lane == 3);
  numbers[threadIdx.x] = right;
}

// Lanes talk through shared memory with and without the barrier of the warp.
__global__ void talk_in_warp(int* numbers, bool with_barrier) {
  P3D_SHARED(int, tile, kThreads);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) {
    __syncwarp();
  } else {
    __shfl_sync(0xffffffffu, 0, 0);  // orders no memory
  }
  numbers[threadIdx.x] = tile[threadIdx.x ^ 1u];
}

// The last block to finish adds up what all have written.
__global__ void last_block_sums(int* partial, unsigned* arrived, int* total) {
  P3D_SHARED(bool, last, 1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    __threadfence();
    last[0] = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last[0] || threadIdx.x != 0) return;
  int sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += partial[i];
  total[0] = sum;
}

// numbers[lane] = whether a 16 x 16 times 16 x 8 product of small integers comes out exactly.
template <typename Scalar>
__global__ void multiply_tiles(int* numbers) {
  P3D_SHARED(Scalar, left, 16 * 16);   // [row][k]
  P3D_SHARED(Scalar, right, 16 * 16);  // [k][column], columns 8 .. 15 unused
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) {
    store(static_cast<float>(i % 7 - 3), left[i]);
    store(static_cast<float>(i % 5 - 2), right[i]);
  }
  __syncwarp();
  uint32_t a[4], b[4];
  // Tiles of a: rows 0, rows 8, then the same of columns 8; of b: rows 0, rows 8, columns unused.
  load_tiles<false>(a, left + (lane % 16) * 16 + lane / 16 * 8);
  load_tiles<true>(b, right + (lane % 16) * 16 + lane / 16 * 8);
  float c[4] = {1, 1, 1, 1};
  mma_16x8x16<Scalar>(c, a, {b[0], b[1]});
  bool right_result = true;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float wanted = 1;
    for (int k = 0; k < 16; ++k) wanted += load(left[row * 16 + k]) * load(right[k * 16 + column]);
    right_result = right_result && c[i] == wanted;
  }
  numbers[lane] = right_result;
}

__global__ void copy_ahead(const int* input, int* numbers, bool wait) {
  P3D_SHARED(int, tile, kThreads);
  if (threadIdx.x < kThreads / 4) copy_async(tile + 4 * threadIdx.x, input + 4 * threadIdx.x);
  commit_copies();
  if (wait) wait_for_copies<0>();
  __syncthreads();
  numbers[threadIdx.x] = tile[threadIdx.x] == input[threadIdx.x];
}

__global__ void many_barriers(int* numbers, int rounds) {
  for (int round = 0; round < rounds; ++round) __syncthreads();
  numbers[threadIdx.x] = rounds;
}

__global__ void check_an_index(int index) { check_index(index, 4, "example: rows"); }

struct Example {
  int numbers[256] = {};
  int gap[256] = {};
  alignas(16) int input[kThreads] = {};

  Status run(const std::string& name);
  Status run_barriers(const std::string& name);
  Status run_memory(const std::string& name);
  Status run_warps(const std::string& name);
  Status run_units(const std::string& name);
  // The status of a launch that writes 1 to numbers[0 .. count - 1] where all is right.
  Status checked(Status status, int count) const;
};

constexpr Status kUnknown = "no such example";

Status Example::checked(Status status, int count) const {
  if (status != nullptr) return status;
  for (int i = 0; i < count; ++i) {
    if (numbers[i] != 1) return "wrong result";
  }
  return nullptr;
}

Status Example::run_barriers(const std::string& name) {
  if (name == "barrier") return launch(pass_left, 3, kThreads, 0, nullptr, numbers, true);
  if (name == "missing barrier") return launch(pass_left, 3, kThreads, 0, nullptr, numbers, false);
  if (name == "reuse too early") return launch(reuse_too_early, 1, kThreads, 0, nullptr, numbers);
  if (name == "barrier of some") return launch(barrier_of_some, 1, kThreads, 0, nullptr, numbers);
  if (name == "barrier in two places") {
    return launch(barrier_in_two_places, 1, kThreads, 0, nullptr, numbers);
  }
  if (name == "many barriers") return launch(many_barriers, 1, 256, 0, nullptr, numbers, 4000);
  if (name == "last block") {
    unsigned* arrived = reinterpret_cast<unsigned*>(numbers + 200);
    const Status status =
        launch(last_block_sums, 7, kThreads, 0, nullptr, numbers, arrived, numbers + 201);
    return status != nullptr ? status : numbers[201] == 28 ? nullptr : "wrong sum";
  }
  return kUnknown;
}

Status Example::run_memory(const std::string& name) {
  if (name == "shared") return launch(touch_shared, 1, kThreads, 0, nullptr, numbers, 0);
  if (name == "behind shared") return launch(touch_shared, 1, kThreads, 0, nullptr, numbers, 1);
  if (name == "before shared") return launch(touch_shared, 1, kThreads, 0, nullptr, numbers, -1);
  if (name == "dynamic") return launch(touch_dynamic, 1, kThreads, 256, nullptr, numbers);
  if (name == "behind dynamic") return launch(touch_dynamic, 1, kThreads, 252, nullptr, numbers);
  if (name == "unwritten") return launch(read_unwritten, 1, kThreads, 0, nullptr, numbers);
  if (name == "behind global") return launch(write_global, 1, kThreads, 0, nullptr, numbers, 193);
  if (name == "before global") return launch(write_global, 1, kThreads, 0, nullptr, numbers, -2);
  if (name == "far away") return launch(write_global, 1, kThreads, 0, nullptr, numbers, 1 << 24);
  if (name == "read behind") {
    return launch(read_global, 1, kThreads, 0, nullptr, input, numbers, 1);
  }
  if (name == "write input") return launch(write_input, 1, kThreads, 0, nullptr, input);
  if (name == "write same place") {
    return launch(write_same_place, 2, kThreads, 0, nullptr, numbers);
  }
  if (name == "index") return launch(check_an_index, 1, 1, 0, nullptr, 4);
  return kUnknown;
}

Status Example::run_warps(const std::string& name) {
  const unsigned all = 0xffffffffu;
  if (name == "warp functions") {
    return checked(launch(warp_functions, 1, kThreads, 0, nullptr, numbers), kThreads);
  }
  if (name == "mask without the caller") {
    return launch(shuffle_with, 1, kThreads, 0, nullptr, numbers, 0xffffu, 0);
  }
  if (name == "lane of no block") return launch(shuffle_with, 1, 40, 0, nullptr, numbers, all, 0);
  if (name == "lane has ended") return launch(shuffle_of_some, 1, kThreads, 0, nullptr, numbers);
  if (name == "source outside the mask") {
    return launch(shuffle_with, 1, 16, 0, nullptr, numbers, 0xffffu, 20);
  }
  if (name == "collective against barrier") {
    return launch(shuffle_against_barrier, 1, kThreads, 0, nullptr, numbers);
  }
  if (name == "warp barrier") return launch(talk_in_warp, 1, kThreads, 0, nullptr, numbers, true);
  if (name == "missing warp barrier") {
    return launch(talk_in_warp, 1, kThreads, 0, nullptr, numbers, false);
  }
  return kUnknown;
}

Status Example::run_units(const std::string& name) {
  if (name == "tiles of bfloat16") {
    return checked(launch(multiply_tiles<BFloat16>, 1, 32, 0, nullptr, numbers), 32);
  }
  if (name == "tiles of float16") {
    return checked(launch(multiply_tiles<Float16>, 1, 32, 0, nullptr, numbers), 32);
  }
  if (name == "copy ahead" || name == "copy without waiting") {
    const bool wait = name == "copy ahead";
    return checked(launch(copy_ahead, 1, kThreads, 0, nullptr, input, numbers, wait), kThreads);
  }
  return kUnknown;
}

Status Example::run(const std::string& name) {
  if (name == "threads") return launch(write_global, 1, 1025, 0, nullptr, numbers, 0);
  if (name == "shared bytes") return launch(touch_dynamic, 1, kThreads, 232449, nullptr, numbers);
  if (name == "grid") return launch(write_global, Grid(1, 65536), 1, 0, nullptr, numbers, 0);
  if (name == "long grid") {
    return launch(write_global, int64_t{1} << 32, 1, 0, nullptr, numbers, 0);
  }
  if (name == "no blocks") return launch(write_global, 0, kThreads, 0, nullptr, numbers, 1 << 20);
  const std::initializer_list<Status (Example::*)(const std::string&)> groups = {
      &Example::run_barriers, &Example::run_memory, &Example::run_warps, &Example::run_units};
  for (const auto group : groups) {
    const Status status = (this->*group)(name);
    if (status != kUnknown) return status;
  }
  return kUnknown;
}

}  // namespace
}  // namespace perception3d

extern "C" {

// Null, or the report of the interpreter.
__attribute__((visibility("default"))) const char* p3d_simt_run_example(const char* name) {
  using namespace perception3d;
  const std::lock_guard<std::recursive_mutex> guard(simt::machine().lock);
  Example example;
  const size_t buffers = simt::memory_map().count();
  simt::memory_map().add(example.numbers, sizeof(example.numbers),
                         {"numbers", sizeof(int), true, true, false});
  simt::memory_map().add(example.input, sizeof(example.input),
                         {"input", sizeof(int), false, true, false});
  const Status status = example.run(name);
  simt::memory_map().drop_to(buffers);
  return status;
}

// 0: blocks, warps and lanes run in ascending order; 1: descending; more: shuffled by this number.
__attribute__((visibility("default"))) void p3d_simt_set_schedule(int schedule) {
  perception3d::simt::machine().set_schedule(schedule);
}
}
