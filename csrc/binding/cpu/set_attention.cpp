#include "cpu/set_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "binding/storage_types.h"

namespace perception3d {
namespace {

int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

// Rows (N, H, D) like `like`, with the numbers of a head next to each other; the rest may be
// strided.
void check_rows(const char* op, const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " must lie on the CPU");
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", name, " must be ",
                  torch::headeronly::toString(like.scalar_type()), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.dim() == 3, op, ": ", name, " must have 3 dimensions, got ", tensor.dim());
  for (int64_t dim = 0; dim < 3; ++dim) check_size(op, name, tensor, dim, like.size(dim));
  STD_TORCH_CHECK(tensor.size(2) <= 1 || tensor.numel() == 0 || tensor.stride(2) == 1, op, ": ",
                  name, " must have stride 1 in dimension 2, got ", tensor.stride(2));
}

// The kernels read rows by number, and threads write rows without asking each other: every row
// must be inside, and in one set only.
RowSets checked_sets(const char* op, const Tensor& order, const Tensor& offsets, int64_t num_rows) {
  check_cpu(op, "order", order, ScalarType::Long, 1);
  check_cpu(op, "offsets", offsets, ScalarType::Long, 1);
  check_size(op, "order", order, 0, num_rows);
  STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
  const int64_t count = offsets.size(0) - 1;
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  STD_TORCH_CHECK(offset[0] == 0 && offset[count] == num_rows, op, ": offsets must run from 0 to ",
                  num_rows, ", got ", offset[0], " to ", offset[count]);
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(offset[i] <= offset[i + 1], op, ": offsets must ascend, got ", offset[i],
                    " before ", offset[i + 1]);
  }
  const int64_t* row = order.const_data_ptr<int64_t>();
  std::vector<bool> seen(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) {
    const bool inside = row[i] >= 0 && row[i] < num_rows;
    STD_TORCH_CHECK(inside && !seen[row[i]], op, ": order must be a permutation of 0..",
                    num_rows - 1, ", got ", row[i], " in row ", i);
    seen[row[i]] = true;
  }
  return {row, offset, count};
}

template <typename Scalar>
HeadRows<Scalar> head_rows(const Tensor& tensor) {
  return {data_of<Scalar>(tensor), tensor.stride(0), tensor.stride(1)};
}

template <typename Scalar>
AttentionRows<Scalar> attention_rows(const Tensor& query, const Tensor& key, const Tensor& value) {
  return {head_rows<Scalar>(query), head_rows<Scalar>(key), head_rows<Scalar>(value), query.size(1),
          query.size(2)};
}

ScalarType sum_dtype(const Tensor& rows) {
  return rows.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const Tensor& order, const Tensor& offsets, bool keep_log_sum) {
  const char* op = "set_attention";
  check_rows(op, "query", query, query);
  check_rows(op, "key", key, query);
  check_rows(op, "value", value, query);
  const int64_t num_rows = query.size(0), heads = query.size(1);
  const RowSets sets = checked_sets(op, order, offsets, num_rows);
  Tensor result = torch::stable::new_empty(query, {num_rows, heads, query.size(2)});
  Tensor log_sum =
      torch::stable::new_empty(query, {keep_log_sum ? num_rows : 0, heads}, sum_dtype(query));
  dispatch_storage(op, query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    set_attention(attention_rows<Scalar>(query, key, value), sets, mutable_data_of<Scalar>(result),
                  keep_log_sum ? mutable_data_of<Compute<Scalar>>(log_sum) : nullptr,
                  thread_count());
  });
  return {result, log_sum};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& query,
                                            const Tensor& key, const Tensor& value,
                                            const Tensor& result, const Tensor& log_sum,
                                            const Tensor& order, const Tensor& offsets) {
  const char* op = "set_attention_backward";
  check_rows(op, "query", query, query);
  check_rows(op, "key", key, query);
  check_rows(op, "value", value, query);
  check_rows(op, "grad", grad, query);
  check_rows(op, "result", result, query);
  check_cpu(op, "log_sum", log_sum, sum_dtype(query), 2);
  const int64_t num_rows = query.size(0), heads = query.size(1), width = query.size(2);
  check_size(op, "log_sum", log_sum, 0, num_rows);
  check_size(op, "log_sum", log_sum, 1, heads);
  const RowSets sets = checked_sets(op, order, offsets, num_rows);
  const auto empty = [&] { return torch::stable::new_empty(query, {num_rows, heads, width}); };
  Tensor grad_query = empty(), grad_key = empty(), grad_value = empty();
  dispatch_storage(op, query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const AttentionGradients<Scalar> gradients{mutable_data_of<Scalar>(grad_query),
                                               mutable_data_of<Scalar>(grad_key),
                                               mutable_data_of<Scalar>(grad_value)};
    set_attention_backward(head_rows<Scalar>(grad), attention_rows<Scalar>(query, key, value),
                           head_rows<Scalar>(result), data_of<Compute<Scalar>>(log_sum), sets,
                           gradients, thread_count());
  });
  return {grad_query, grad_key, grad_value};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("set_attention", TORCH_BOX(&forward));
  m.impl("set_attention_backward", TORCH_BOX(&backward));
}

}  // namespace perception3d
