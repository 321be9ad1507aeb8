#include "binding/sparse_conv.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "binding/cpu/cpu_call.h"
#include "binding/cpu/fresh_tensor.h"
#include "cpu/subm_conv.h"

namespace perception3d {
namespace {

const int32_t* rows_in(const RowTable& table) { return table.rows.const_data_ptr<int32_t>(); }

void check_rows(const char* op, const RowTable& table, int64_t bad_row, int64_t rows) {
  STD_TORCH_CHECK(bad_row < 0, op, ": ", table.name, " must be -1 or in 0..", rows - 1,
                  ", which they are not in row ", bad_row);
}

struct OnCpu {
  static Tensor convolve(const char* op, const SparseConvTensors& tensors,
                         const std::optional<Tensor>& bias) {
    const CpuCall call{op};
    tensors.check(op, call);
    tensors.check_bias(op, call, bias);
    const ConvShape shape = tensors.shape();
    Tensor result = fresh_tensor(tensors.features, {shape.rows, shape.out_channels});
    dispatch_storage(op, "features", tensors.features, [&](auto* scalar) {
      using Scalar = std::remove_pointer_t<decltype(scalar)>;
      const int64_t bad_row =
          subm_conv(shape, data_of<Scalar>(tensors.features), rows_in(tensors.inputs),
                    tensors.weights<Scalar>(), bias.has_value() ? data_of<Scalar>(*bias) : nullptr,
                    mutable_data_of<Scalar>(result), thread_count());
      check_rows(op, tensors.inputs, bad_row, shape.inputs);
    });
    return result;
  }

  static std::tuple<Tensor, Tensor> go_back(const char* op, const Tensor& grad,
                                            const SparseConvTensors& tensors, bool needs_features,
                                            bool needs_weight) {
    const CpuCall call{op};
    tensors.check(op, call);
    tensors.check_grad(op, call, grad);
    const ConvShape shape = tensors.shape();
    Tensor grad_features =
        fresh_tensor(grad, {needs_features ? shape.inputs : 0, shape.in_channels});
    Tensor grad_weight = torch::stable::new_empty(
        grad, {needs_weight ? shape.taps : 0, shape.in_channels, shape.out_channels});
    dispatch_storage(op, "grad", grad, [&](auto* scalar) {
      using Scalar = std::remove_pointer_t<decltype(scalar)>;
      if (needs_features) {
        const int64_t bad_row =
            subm_conv<Scalar>(transposed(shape), data_of<Scalar>(grad), rows_in(tensors.outputs),
                              tensors.weights_back<Scalar>(), nullptr,
                              mutable_data_of<Scalar>(grad_features), thread_count());
        check_rows(op, tensors.outputs, bad_row, shape.rows);
      }
      if (needs_weight) {
        const int64_t bad_row = subm_conv_weight_gradient(
            shape, data_of<Scalar>(tensors.features), data_of<Scalar>(grad),
            rows_in(tensors.inputs), mutable_data_of<Scalar>(grad_weight), thread_count());
        check_rows(op, tensors.inputs, bad_row, shape.inputs);
      }
    });
    return {grad_features, grad_weight};
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  using Operators = SparseConvOperators<OnCpu>;
  m.impl("subm_conv", TORCH_BOX(&Operators::subm_conv));
  m.impl("subm_conv_backward", TORCH_BOX(&Operators::subm_conv_backward));
  m.impl("sparse_conv", TORCH_BOX(&Operators::sparse_conv));
  m.impl("sparse_conv_backward", TORCH_BOX(&Operators::sparse_conv_backward));
}

}  // namespace perception3d
