#include "cpu/scattered_linear_attention.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/row_lists.h"
#include "binding/linear_attention.h"

namespace perception3d {
namespace {

// The kernels follow offsets into order, and order into all rows, of which each is written once.
void check_windows(const char* op, const LinearAttentionTensors& tensors) {
  tensors.check(op);
  STD_TORCH_CHECK(tensors.query.is_cpu(), op, ": query must lie on the CPU");
  const int64_t rows = tensors.query.size(0);
  check_offsets(op, data_of<int64_t>(tensors.offsets), tensors.offsets.size(0) - 1, rows);
  if (!tensors.order.has_value()) return;
  const int64_t* row = tensors.order->const_data_ptr<int64_t>();
  std::vector<char> seen(rows);
  for (int64_t i = 0; i < rows; ++i) {
    STD_TORCH_CHECK(row[i] >= 0 && row[i] < rows, op, ": order must be in 0..", rows - 1, ", got ",
                    row[i], " in place ", i);
    STD_TORCH_CHECK(!seen[row[i]], op, ": order must be a permutation, got ", row[i], " twice");
    seen[row[i]] = 1;
  }
}

Tensor forward_checked(const char* op, const LinearAttentionTensors& tensors) {
  check_windows(op, tensors);
  const Tensor& query = tensors.query;
  const int64_t width = tensors.value.size(2);
  Tensor output = fresh_tensor(query, {query.size(0), query.size(1), width});
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    const WritableHeadRows<Scalar> target{mutable_data_of<Scalar>(output), query.size(1) * width,
                                          width};
    scattered_linear_attention(tensors.arguments<Scalar>(), target, thread_count());
  });
  return output;
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& offsets,
               const std::optional<Tensor>& order, double epsilon) {
  return forward_checked("scattered_linear_attention",
                         {query, key, value, offsets, order, epsilon});
}

Tensor forward_qkv(const Tensor& qkv, const Tensor& offsets, const std::optional<Tensor>& order,
                   double epsilon) {
  const char* op = "scattered_linear_attention_qkv";
  const QkvParts parts(op, qkv);
  return forward_checked(op, {parts.query, parts.key, parts.value, offsets, order, epsilon});
}

Tensor backward(const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value,
                const Tensor& offsets, const std::optional<Tensor>& order, double epsilon) {
  const char* op = "scattered_linear_attention_backward";
  const LinearAttentionTensors tensors{query, key, value, offsets, order, epsilon};
  check_windows(op, tensors);
  check_grad(op, grad, tensors);
  const int64_t heads = query.size(1);
  const int64_t d = query.size(2);
  const int64_t e = value.size(2);
  Tensor result = fresh_tensor(query, {query.size(0), heads * (2 * d + e)});
  dispatch_storage(op, "query", query, [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    scattered_linear_attention_backward(
        tensors.arguments<Scalar>(), head_rows<Scalar>(grad), columns_of<Scalar>(result, 0, d),
        columns_of<Scalar>(result, heads * d, d), columns_of<Scalar>(result, 2 * heads * d, e),
        thread_count());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("scattered_linear_attention", TORCH_BOX(&forward));
  m.impl("scattered_linear_attention_qkv", TORCH_BOX(&forward_qkv));
  m.impl("scattered_linear_attention_backward", TORCH_BOX(&backward));
}

}  // namespace perception3d
