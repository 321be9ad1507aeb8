#include "cpu/mamba_mixer.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/linear_map.h"
#include "binding/cpu/sequence_contents.h"
#include "binding/sequences.h"

namespace perception3d {
namespace {

using Optional = std::optional<Tensor>;

struct MixerTensors {
  const Tensor& rows;
  const Optional& added;
  const Tensor& offsets;
  const Optional& order;
  bool reverse;
  const Tensor &norm, &in, &conv_weight, &conv_bias, &project, &step, &step_bias, &A, &skip, &out;
  const Optional &after_weight, &after_bias;

  int64_t width() const { return rows.size(1); }
  int64_t inner() const { return A.size(0); }
  int64_t states() const { return A.size(1); }

  void check(const CpuCall& call) const {
    check_floating(call.op, "rows", rows);
    check_matrix(call, "rows", rows, dtype());
    if (added.has_value()) {
      check_matrix(call, "added", *added, dtype());
      check_size(call.op, "added", *added, 0, rows.size(0));
      check_size(call.op, "added", *added, 1, width());
    }
    call.check_input("A", A, dtype(), 2);
    check_vector(call, "norm", norm, width());
    check_weight(call, "in_proj", in, 2 * inner(), width());
    call.check_view("step_proj", step, dtype(), 2);
    check_size(call.op, "step_proj", step, 0, inner());
    check_weight(call, "x_proj", project, step.size(1) + 2 * states(), inner());
    check_weight(call, "out_proj", out, width(), inner());
    call.check_input("conv_weight", conv_weight, dtype(), 2);
    check_size(call.op, "conv_weight", conv_weight, 0, inner());
    STD_TORCH_CHECK(conv_weight.size(1) >= 1, call.op, ": conv_weight must have a tap");
    check_vector(call, "conv_bias", conv_bias, inner());
    check_vector(call, "step_bias", step_bias, inner());
    check_vector(call, "skip", skip, inner());
    STD_TORCH_CHECK(after_weight.has_value() == after_bias.has_value(), call.op,
                    ": after_weight and after_bias go together");
    if (!after_weight.has_value()) return;
    check_vector(call, "after_weight", *after_weight, width());
    check_vector(call, "after_bias", *after_bias, width());
  }

  template <typename Number>
  MambaMixer<Number> mixer(const char* op, double epsilon, double after_epsilon) const {
    const auto map = [](const Tensor& weight) {
      return map_of<Number>(weight, std::nullopt, Activation::kNone);
    };
    return {matrix_of<Number>(rows),
            added.has_value() ? matrix_of<Number>(*added) : RowMatrix<Number>{},
            sequence_layout(op, rows, offsets, order, reverse),
            data_of<Number>(norm),
            static_cast<Number>(epsilon),
            map(in),
            map(project),
            map(step),
            map(out),
            data_of<Number>(conv_weight),
            data_of<Number>(conv_bias),
            conv_weight.size(1),
            data_of<Number>(A),
            data_of<Number>(skip),
            data_of<Number>(step_bias),
            states(),
            after_weight.has_value() ? data_of<Number>(*after_weight) : nullptr,
            after_bias.has_value() ? data_of<Number>(*after_bias) : nullptr,
            static_cast<Number>(after_epsilon)};
  }

 private:
  ScalarType dtype() const { return rows.scalar_type(); }

  void check_vector(const CpuCall& call, const char* name, const Tensor& tensor,
                    int64_t size) const {
    call.check_input(name, tensor, dtype(), 1);
    check_size(call.op, name, tensor, 0, size);
  }

  void check_weight(const CpuCall& call, const char* name, const Tensor& weight, int64_t outputs,
                    int64_t inputs) const {
    call.check_view(name, weight, dtype(), 2);
    check_size(call.op, name, weight, 0, outputs);
    check_size(call.op, name, weight, 1, inputs);
  }
};

Tensor mix(const Tensor& rows, const Optional& added, const Tensor& offsets, const Optional& order,
           bool reverse, const Tensor& norm, double epsilon, const Tensor& in,
           const Tensor& conv_weight, const Tensor& conv_bias, const Tensor& project,
           const Tensor& step, const Tensor& step_bias, const Tensor& A, const Tensor& skip,
           const Tensor& out, const Optional& after_weight, const Optional& after_bias,
           double after_epsilon) {
  const CpuCall call{"mamba_mixer"};
  const MixerTensors tensors{rows, added,       offsets,   order,        reverse,   norm,
                             in,   conv_weight, conv_bias, project,      step,      step_bias,
                             A,    skip,        out,       after_weight, after_bias};
  tensors.check(call);
  Tensor result = fresh_tensor(rows, {rows.size(0), tensors.width()});
  dispatch_number(rows.scalar_type(), [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    const auto mixer = tensors.mixer<Number>(call.op, epsilon, after_epsilon);
    check_contents(call.op, mixer.layout);
    mamba_mixer(mixer, mutable_data_of<Number>(result), thread_count());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) { m.impl("mamba_mixer", TORCH_BOX(&mix)); }

}  // namespace perception3d
