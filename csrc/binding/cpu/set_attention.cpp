#include "cpu/set_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/row_lists.h"
#include "binding/set_attention.h"

namespace perception3d {
namespace {

RowSets checked_sets(const char* op, const SetAttentionTensors& tensors) {
  STD_TORCH_CHECK(tensors.query.is_cpu(), op, ": query must lie on the CPU");
  check_cpu(op, "order", tensors.order, ScalarType::Long, 1);
  check_cpu(op, "offsets", tensors.offsets, ScalarType::Long, 1);
  tensors.check(op);
  // The kernels read rows by number, and threads write rows without asking each other: every row
  // must be inside, and in one set only.
  const RowSets sets = tensors.sets();
  check_offsets(op, sets.offsets, sets.count, tensors.query.size(0));
  check_permutation(op, sets.order, tensors.query.size(0));
  return sets;
}

std::tuple<Tensor, Tensor> forward(const char* op, const SetAttentionTensors& tensors,
                                   bool keep_log_sum) {
  const RowSets sets = checked_sets(op, tensors);
  const Tensor& query = tensors.query;
  const int64_t num_rows = query.size(0), heads = query.size(1);
  Tensor result = fresh_tensor(query, {num_rows, heads, query.size(2)});
  Tensor log_sum =
      torch::stable::new_empty(query, {keep_log_sum ? num_rows : 0, heads}, sum_dtype(query));
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    set_attention(tensors.rows<Scalar>(), sets, mutable_data_of<Scalar>(result),
                  keep_log_sum ? mutable_data_of<Compute<Scalar>>(log_sum) : nullptr,
                  thread_count());
  });
  return {result, log_sum};
}

Tensor backward(const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value,
                const Tensor& result, const Tensor& log_sum, const Tensor& order,
                const Tensor& offsets) {
  const char* op = "set_attention_backward";
  const SetAttentionTensors tensors{query, key, value, order, offsets};
  const RowSets sets = checked_sets(op, tensors);
  check_cpu(op, "log_sum", log_sum, sum_dtype(query), 2);
  tensors.check_results(op, grad, result, log_sum);
  const int64_t heads = query.size(1), width = query.size(2);
  Tensor gradients = fresh_tensor(query, {query.size(0), 3 * heads * width});
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    set_attention_backward(head_rows<Scalar>(grad), tensors.rows<Scalar>(),
                           head_rows<Scalar>(result), data_of<Compute<Scalar>>(log_sum), sets,
                           gradients_in<Scalar>(gradients, width), thread_count());
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("set_attention", TORCH_BOX(&attend<&forward>));
  m.impl("set_attention_qk", TORCH_BOX(&attend_qk<&forward>));
  m.impl("set_attention_backward", TORCH_BOX(&backward));
}

}  // namespace perception3d
