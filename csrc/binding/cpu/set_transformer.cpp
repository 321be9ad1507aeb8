#include "cpu/set_transformer.h"

#include <torch/csrc/stable/library.h>

#include <utility>
#include <vector>

#include "binding/cpu/fresh_tensor.h"
#include "binding/cpu/linear_map.h"
#include "binding/cpu/row_lists.h"

namespace perception3d {
namespace {

struct LayerTensors {
  Tensor rows, table, index, order, offsets;
  std::vector<Tensor> weights, biases;  // query, key and value in one; projection; feed-forward
  std::vector<Tensor> kept, norm_weights, norm_biases;  // the first two norms keep nothing else

  int64_t width() const { return rows.size(1); }

  void check(const CpuCall& call, int64_t heads) const {
    check_floating(call.op, "rows", rows);
    check_matrix(call, "rows", rows, dtype());
    STD_TORCH_CHECK(heads >= 1 && width() >= 1 && width() % heads == 0, call.op,
                    ": the width of rows must be a multiple of heads, got ", width(), " and ",
                    heads);
    check_lists(call);
    check_maps(call);
    check_norms(call);
  }

  template <typename Number>
  std::vector<AddNorm<Number>> norms() const {
    std::vector<AddNorm<Number>> found;
    for (size_t i = 0; i < norm_weights.size(); ++i) {
      const Number* further = i < 2 ? nullptr : data_of<Number>(kept[i - 2]);
      found.push_back({further, i < 2 ? 0 : kept[i - 2].stride(0), nullptr,
                       data_of<Number>(norm_weights[i]), data_of<Number>(norm_biases[i])});
    }
    return found;
  }

  // Outputs begin .. end - 1 of map i.
  template <typename Number>
  LinearMap<Number> map(int i, int64_t begin, int64_t end, Activation activation) const {
    LinearMap<Number> whole = map_of<Number>(weights[i], biases[i], activation);
    whole.weight.data += begin * whole.weight.out_step;
    whole.weight.out = end - begin;
    whole.bias += begin;
    return whole;
  }

 private:
  ScalarType dtype() const { return rows.scalar_type(); }

  // The kernel follows numbers of rows, and threads write rows without asking each other.
  void check_lists(const CpuCall& call) const {
    check_matrix(call, "table", table, dtype());
    check_size(call.op, "table", table, 1, width());
    call.check_input("index", index, ScalarType::Long, 1);
    check_size(call.op, "index", index, 0, rows.size(0));
    check_rows(call.op, "index", data_of<int64_t>(index), index.size(0), table.size(0));
    call.check_input("order", order, ScalarType::Long, 1);
    check_size(call.op, "order", order, 0, rows.size(0));
    call.check_input("offsets", offsets, ScalarType::Long, 1);
    STD_TORCH_CHECK(offsets.size(0) >= 1, call.op, ": offsets must not be empty");
    check_offsets(call.op, data_of<int64_t>(offsets), offsets.size(0) - 1, rows.size(0));
    check_permutation(call.op, data_of<int64_t>(order), rows.size(0));
  }

  void check_maps(const CpuCall& call) const {
    STD_TORCH_CHECK(weights.size() == 4 && biases.size() == 4, call.op,
                    ": there must be four maps");
    const int64_t inputs[] = {width(), width(), width(), weights[2].size(0)};
    for (int i = 0; i < 4; ++i) check_map(call, dtype(), inputs[i], weights[i], biases[i]);
    check_size(call.op, "the first weight", weights[0], 0, 3 * width());
    check_size(call.op, "the second weight", weights[1], 0, width());
    check_size(call.op, "the last weight", weights[3], 0, width());
  }

  void check_norms(const CpuCall& call) const {
    STD_TORCH_CHECK(norm_weights.size() == kept.size() + 2 && norm_biases.size() == kept.size() + 2,
                    call.op, ": there must be two norms, and one for all further kept rows");
    for (const Tensor& further : kept) {
      check_matrix(call, "kept", further, dtype());
      check_size(call.op, "kept", further, 0, rows.size(0));
      check_size(call.op, "kept", further, 1, width());
    }
    for (size_t i = 0; i < norm_weights.size(); ++i) {
      call.check_input("norm_weights", norm_weights[i], dtype(), 1);
      check_size(call.op, "norm_weights", norm_weights[i], 0, width());
      call.check_input("norm_biases", norm_biases[i], dtype(), 1);
      check_size(call.op, "norm_biases", norm_biases[i], 0, width());
    }
  }
};

Tensor transform(const Tensor& rows, const Tensor& table, const Tensor& index, const Tensor& order,
                 const Tensor& offsets, int64_t heads, std::vector<Tensor> weights,
                 std::vector<Tensor> biases, int64_t activation, std::vector<Tensor> kept,
                 std::vector<Tensor> norm_weights, std::vector<Tensor> norm_biases,
                 double epsilon) {
  const CpuCall call{"set_transformer"};
  const LayerTensors tensors{rows,
                             table,
                             index,
                             order,
                             offsets,
                             std::move(weights),
                             std::move(biases),
                             std::move(kept),
                             std::move(norm_weights),
                             std::move(norm_biases)};
  check_activation(call, activation);
  tensors.check(call, heads);
  const int64_t width = tensors.width(), hidden = tensors.weights[2].size(0);
  Tensor result = fresh_tensor(rows, {rows.size(0), width});
  dispatch_number(rows.scalar_type(), [&](auto* number) {
    using Number = std::remove_pointer_t<decltype(number)>;
    const std::vector<AddNorm<Number>> norms = tensors.norms<Number>();
    const Activation none = Activation::kNone;
    const SetTransformer<Number> layer{
        matrix_of<Number>(rows),
        matrix_of<Number>(table),
        data_of<int64_t>(index),
        {data_of<int64_t>(order), data_of<int64_t>(offsets), offsets.size(0) - 1},
        heads,
        tensors.map<Number>(0, 0, 2 * width, none),
        tensors.map<Number>(0, 2 * width, 3 * width, none),
        tensors.map<Number>(1, 0, width, none),
        tensors.map<Number>(2, 0, hidden, static_cast<Activation>(activation)),
        tensors.map<Number>(3, 0, width, none),
        {norms.data(), static_cast<int64_t>(norms.size()), static_cast<Number>(epsilon)}};
    set_transformer(layer, mutable_data_of<Number>(result), thread_count());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception3d, CPU, m) {
  m.impl("set_transformer", TORCH_BOX(&transform));
}

}  // namespace perception3d
