#include "cpu/hard_voxelize.h"

#include <algorithm>

namespace perception3d {
namespace {

// Open-addressing hash table from cell number to voxel number.
class VoxelTable {
 public:
  explicit VoxelTable(int64_t max_voxels) {
    while ((int64_t{1} << bits_) < 2 * max_voxels) ++bits_;
    slots_.assign(int64_t{1} << bits_, Slot{-1, -1});
  }

  // The voxel number stored for `key`, -1 for a new key, to be written by the caller.
  int64_t& voxel(int64_t key) {
    const uint64_t mask = slots_.size() - 1;
    uint64_t place = static_cast<uint64_t>(key) * 0x9e3779b97f4a7c15u >> (64 - bits_);
    while (slots_[place].voxel >= 0 && slots_[place].key != key) place = (place + 1) & mask;
    slots_[place].key = key;
    return slots_[place].voxel;
  }

 private:
  struct Slot {
    int64_t key, voxel;
  };
  int bits_ = 4;
  std::vector<Slot> slots_;
};

}  // namespace

void hard_voxelize(int64_t* key_of_point, int64_t num_points, int64_t max_points,
                   int64_t max_voxels, std::vector<int64_t>& voxel_keys,
                   std::vector<int64_t>& num_points_of_voxel) {
  VoxelTable table(std::min(max_voxels, num_points));
  for (int64_t point = 0; point < num_points; ++point) {
    const int64_t key = key_of_point[point];
    if (key < 0) continue;
    key_of_point[point] = -1;
    int64_t& voxel = table.voxel(key);
    if (voxel < 0) {
      const int64_t next = static_cast<int64_t>(voxel_keys.size());
      if (next == max_voxels) continue;  // the slot stays free: its voxel is still -1
      voxel = next;
      voxel_keys.push_back(key);
      num_points_of_voxel.push_back(0);
    }
    if (num_points_of_voxel[voxel] == max_points) continue;
    ++num_points_of_voxel[voxel];
    key_of_point[point] = voxel;
  }
}

}  // namespace perception3d
