#include "cpu/set_partition.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/row_lists.h"
#include "common/check.h"

namespace perception3d {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> set_partition(const Tensor& cell_in_window,
                                                                 const Tensor& order,
                                                                 const Tensor& offsets,
                                                                 int64_t set_size) {
  const char* op = "set_partition";
  check_cpu(op, "cell_in_window", cell_in_window, ScalarType::Int, 2);
  check_size(op, "cell_in_window", cell_in_window, 1, 3);
  check_cpu(op, "order", order, ScalarType::Long, 1);
  check_cpu(op, "offsets", offsets, ScalarType::Long, 1);
  const int64_t num_voxels = cell_in_window.size(0);
  check_size(op, "order", order, 0, num_voxels);
  STD_TORCH_CHECK(offsets.size(0) >= 1 && set_size >= 1,
                  "set_partition: offsets must not be empty, and set_size must be >= 1");
  const int64_t num_windows = offsets.size(0) - 1;
  const int64_t* row = order.const_data_ptr<int64_t>();
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  // The kernel writes slot_of_voxel by row and reads windows by offset: both must stay inside, and
  // every voxel must have a place.
  check_offsets(op, offset, num_windows, num_voxels);
  check_permutation(op, row, num_voxels);

  std::vector<int64_t> first_set(num_windows + 1);
  count_sets(offset, num_windows, set_size, first_set.data());
  const int64_t sets = first_set[num_windows];
  Tensor voxel_of_slot = torch::stable::new_empty(order, {2, sets, set_size});
  Tensor repeated = torch::stable::new_empty(order, {2, sets, set_size}, ScalarType::Bool);
  Tensor slot_of_voxel = torch::stable::new_empty(order, {2, num_voxels});
  Tensor member = torch::stable::new_empty(order, {2, num_voxels});
  Tensor set_offset = torch::stable::new_empty(order, {sets + 1});
  const SetTables tables{
      voxel_of_slot.mutable_data_ptr<int64_t>(), repeated.mutable_data_ptr<bool>(),
      slot_of_voxel.mutable_data_ptr<int64_t>(), member.mutable_data_ptr<int64_t>(),
      set_offset.mutable_data_ptr<int64_t>()};
  fill_sets(cell_in_window.const_data_ptr<int32_t>(), row, offset, first_set.data(), num_voxels,
            num_windows, set_size, tables, thread_count());
  return {voxel_of_slot, repeated, slot_of_voxel, member, set_offset};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("set_partition", TORCH_BOX(&set_partition));
}

}  // namespace perception3d
