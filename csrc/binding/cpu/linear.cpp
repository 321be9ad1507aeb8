#include "cpu/linear.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/linear_map.h"

namespace perception3d {
namespace {

Tensor map_rows(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias,
                int64_t activation) {
  const CpuCall call{"linear"};
  check_floating(call.op, "rows", rows);
  check_matrix(call, "rows", rows, rows.scalar_type());
  check_map(call, rows.scalar_type(), rows.size(1), weight, bias);
  check_activation(call, activation);
  Tensor result = fresh_tensor(rows, {rows.size(0), weight.size(0)});
  dispatch_number(rows.scalar_type(), [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    linear(matrix_of<Number>(rows),
           map_of<Number>(weight, bias, static_cast<Activation>(activation)),
           mutable_data_of<Number>(result), thread_count());
  });
  return result;
}

std::tuple<Tensor, Tensor> weight_gradient(const Tensor& grad, const Tensor& rows,
                                           bool needs_bias) {
  const CpuCall call{"linear_weight_gradient"};
  const ScalarType dtype = grad.scalar_type();
  check_floating(call.op, "grad", grad);
  check_matrix(call, "grad", grad, dtype);
  check_matrix(call, "rows", rows, dtype);
  check_size(call.op, "rows", rows, 0, grad.size(0));
  Tensor grad_weight = torch::stable::new_empty(grad, {grad.size(1), rows.size(1)});
  Tensor grad_bias = torch::stable::new_empty(grad, {needs_bias ? grad.size(1) : 0});
  dispatch_number(dtype, [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    linear_weight_gradient(
        matrix_of<Number>(grad), matrix_of<Number>(rows), mutable_data_of<Number>(grad_weight),
        needs_bias ? mutable_data_of<Number>(grad_bias) : nullptr, thread_count());
  });
  return {grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("linear", TORCH_BOX(&map_rows));
  m.impl("linear_weight_gradient", TORCH_BOX(&weight_gradient));
}

}  // namespace perception3d
