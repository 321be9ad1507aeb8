#include "cpu/linear.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "binding/storage_types.h"

namespace perception3d {
namespace {

// The numbers of a row have to lie side by side.
void check_matrix(const CpuCall& call, const char* name, const Tensor& tensor, ScalarType dtype) {
  call.check_view(name, tensor, dtype, 2);
  STD_TORCH_CHECK(tensor.size(1) < 2 || tensor.stride(1) == 1, call.op, ": ", name,
                  " must have rows without gaps");
}

template <typename Number>
RowMatrix<Number> matrix_of(const Tensor& tensor) {
  return {data_of<Number>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0)};
}

template <typename Body>
void dispatch_number(ScalarType dtype, const Body& body) {
  if (dtype == ScalarType::Float) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<double*>(nullptr));
  }
}

void check_map(const CpuCall& call, const Tensor& rows, const Tensor& weight,
               const std::optional<Tensor>& bias) {
  check_floating(call.op, "rows", rows);
  check_matrix(call, "rows", rows, rows.scalar_type());
  call.check_view("weight", weight, rows.scalar_type(), 2);
  check_size(call.op, "weight", weight, 1, rows.size(1));
  if (!bias.has_value()) return;
  call.check_input("bias", *bias, rows.scalar_type(), 1);
  check_size(call.op, "bias", *bias, 0, weight.size(0));
}

template <typename Number>
void run(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias,
         Activation activation, const AddNorms<Number>& norms, const Tensor& result) {
  const LinearWeight<Number> factor{data_of<Number>(weight), weight.size(0), weight.size(1),
                                    weight.stride(0), weight.stride(1)};
  linear(matrix_of<Number>(rows), factor, bias.has_value() ? data_of<Number>(*bias) : nullptr,
         activation, norms, mutable_data_of<Number>(result), thread_count());
}

Tensor map_rows(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias,
                int64_t activation) {
  const CpuCall call{"linear"};
  check_map(call, rows, weight, bias);
  STD_TORCH_CHECK(activation >= 0 && activation <= static_cast<int64_t>(Activation::kGelu), call.op,
                  ": activation must be 0, 1 or 2, got ", activation);
  Tensor result = fresh_tensor(rows, {rows.size(0), weight.size(0)});
  dispatch_number(rows.scalar_type(), [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    run<Number>(rows, weight, bias, static_cast<Activation>(activation), {}, result);
  });
  return result;
}

Tensor map_and_norm(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias,
                    std::vector<Tensor> kept, std::vector<Tensor> norm_weights,
                    std::vector<Tensor> norm_biases, double epsilon) {
  const CpuCall call{"linear_norm"};
  const ScalarType dtype = rows.scalar_type();
  check_map(call, rows, weight, bias);
  STD_TORCH_CHECK(norm_weights.size() == kept.size() && norm_biases.size() == kept.size(), call.op,
                  ": every norm must have rows, a weight and a bias");
  for (size_t i = 0; i < kept.size(); ++i) {
    check_matrix(call, "kept", kept[i], dtype);
    check_size(call.op, "kept", kept[i], 0, rows.size(0));
    check_size(call.op, "kept", kept[i], 1, weight.size(0));
    call.check_input("norm_weights", norm_weights[i], dtype, 1);
    check_size(call.op, "norm_weights", norm_weights[i], 0, weight.size(0));
    call.check_input("norm_biases", norm_biases[i], dtype, 1);
    check_size(call.op, "norm_biases", norm_biases[i], 0, weight.size(0));
  }
  Tensor result = fresh_tensor(rows, {rows.size(0), weight.size(0)});
  dispatch_number(dtype, [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    std::vector<AddNorm<Number>> stages;
    for (size_t i = 0; i < kept.size(); ++i) {
      stages.push_back({data_of<Number>(kept[i]), kept[i].stride(0),
                        data_of<Number>(norm_weights[i]), data_of<Number>(norm_biases[i])});
    }
    const AddNorms<Number> norms{stages.data(), static_cast<int64_t>(stages.size()),
                                 static_cast<Number>(epsilon)};
    run<Number>(rows, weight, bias, Activation::kNone, norms, result);
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
  m.impl("linear_norm", TORCH_BOX(&map_and_norm));
  m.impl("linear_weight_gradient", TORCH_BOX(&weight_gradient));
}

}  // namespace perception3d
