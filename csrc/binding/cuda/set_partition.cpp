#include "cuda/set_partition.h"

#include <tuple>

#include "binding/cuda/device.h"
#include "binding/cuda/row_groups.h"

namespace perception3d {
namespace {

using Tables = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Tables set_partition(const Tensor& cell_in_window, const Tensor& order, const Tensor& offsets,
                     int64_t set_size) {
  const char* op = "set_partition";
  DeviceCall call(op, cell_in_window);
  call.check_input("cell_in_window", cell_in_window, ScalarType::Int, 2);
  call.check_input("order", order, ScalarType::Long, 1);
  call.check_input("offsets", offsets, ScalarType::Long, 1);
  check_size(op, "cell_in_window", cell_in_window, 1, 3);
  const int64_t num_voxels = cell_in_window.size(0);
  check_size(op, "order", order, 0, num_voxels);
  STD_TORCH_CHECK(offsets.size(0) >= 1 && set_size >= 1, op,
                  ": offsets must not be empty, and set_size must be >= 1");
  STD_TORCH_CHECK(num_voxels < INT32_MAX / 2, op, ": there must be fewer than 2^30 voxels");
  const cuda::WindowTable table{data_of<int32_t>(cell_in_window), data_of<int64_t>(order),
                                data_of<int64_t>(offsets), num_voxels, offsets.size(0) - 1};

  int64_t* counts = call.workspace<int64_t>(table.num_windows + cuda::kSetTotals);
  const int64_t scratch_bytes = cuda::sum_workspace_bytes(table.num_windows + 1);
  call.check_status(cuda::count_sets(table, set_size, counts,
                                     call.workspace<unsigned char>(scratch_bytes), scratch_bytes,
                                     call.stream()));
  const auto totals = call.read<cuda::kSetTotals>(counts + table.num_windows);
  const int64_t sets = totals[0];
  Tensor voxel_of_slot = call.allocate({2, sets, set_size}, ScalarType::Long);
  Tensor repeated = call.allocate({2, sets, set_size}, ScalarType::Bool);
  Tensor slot_of_voxel = call.allocate({2, num_voxels}, ScalarType::Long);
  Tensor member = call.allocate({2, num_voxels}, ScalarType::Long);
  Tensor set_offset = call.allocate({sets + 1}, ScalarType::Long);
  const cuda::SetTables tables{
      mutable_data_of<int64_t>(voxel_of_slot), mutable_data_of<bool>(repeated),
      mutable_data_of<int64_t>(slot_of_voxel), mutable_data_of<int64_t>(member),
      mutable_data_of<int64_t>(set_offset)};
  if (num_voxels == 0) {
    call.check_status(cuda::fill_sets(table, counts, 0, set_size, nullptr, tables, call.stream()));
    return {voxel_of_slot, repeated, slot_of_voxel, member, set_offset};
  }

  const auto box = cuda::CellBox::from(totals.data());
  const int64_t key_bound = box.key_bound(table.num_windows);
  STD_TORCH_CHECK(key_bound >= 0, op,
                  ": windows times cells must be fewer than 2^62, got cells of ", box.extent[0],
                  " x ", box.extent[1], " x ", box.extent[2], " (z, y, x) in ", table.num_windows,
                  " windows");
  dispatch_key(key_bound, [&](auto* key) {
    using Key = std::remove_pointer_t<decltype(key)>;
    const auto groups = make_row_groups<Key>(call, 2 * num_voxels, key_bound);
    call.check_status(cuda::sort_windows(table, box, groups, call.stream()));
    call.check_status(
        cuda::fill_sets(table, counts, sets, set_size, groups.sorted_rows, tables, call.stream()));
  });
  return {voxel_of_slot, repeated, slot_of_voxel, member, set_offset};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(P3D_LIBRARY, P3D_DEVICE_KEY, m) {
  m.impl("set_partition", TORCH_BOX(&set_partition));
}

}  // namespace perception3d
