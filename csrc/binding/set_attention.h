// Tensors as the arguments of set attention kernels; the checks that need no look at contents.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>

#include "binding/head_rows.h"
#include "common/set_attention.h"

namespace perception3d {

// Sums are float32, or float64 for float64 rows.
inline ScalarType sum_dtype(const Tensor& rows) {
  return rows.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The two parts of query_key (num_rows, 2, heads, width), in place.
struct QueryKeyParts {
  Tensor query, key;

  QueryKeyParts(const char* op, const Tensor& query_key) {
    STD_TORCH_CHECK(query_key.dim() == 4, op, ": query_key must have 4 dimensions, got ",
                    query_key.dim());
    check_size(op, "query_key", query_key, 1, 2);
    query = torch::stable::select(query_key, 1, 0);
    key = torch::stable::select(query_key, 1, 1);
  }
};

// The gradients of query, key and value side by side, (num_rows, 3 * heads * width).
template <typename Scalar>
AttentionGradients<Scalar> gradients_in(const Tensor& tensor, int64_t width) {
  const int64_t columns = tensor.size(1) / 3;
  return {columns_of<Scalar>(tensor, 0, width), columns_of<Scalar>(tensor, columns, width),
          columns_of<Scalar>(tensor, 2 * columns, width)};
}

struct SetAttentionTensors {
  const Tensor& query;
  const Tensor& key;
  const Tensor& value;
  const Tensor& order;
  const Tensor& offsets;

  void check(const char* op) const {
    check_rows(op, "query", query);
    check_rows(op, "key", key);
    check_rows(op, "value", value);
    check_size(op, "order", order, 0, query.size(0));
    STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
  }

  // The further inputs of the backward pass.
  void check_results(const char* op, const Tensor& grad, const Tensor& result,
                     const Tensor& log_sum) const {
    check_rows(op, "grad", grad);
    check_rows(op, "result", result);
    check_size(op, "log_sum", log_sum, 0, query.size(0));
    check_size(op, "log_sum", log_sum, 1, query.size(1));
  }

  template <typename Scalar>
  AttentionRows<Scalar> rows() const {
    return {head_rows<Scalar>(query), head_rows<Scalar>(key), head_rows<Scalar>(value),
            query.size(1), query.size(2)};
  }

  RowSets sets() const {
    return {order.const_data_ptr<int64_t>(), offsets.const_data_ptr<int64_t>(),
            offsets.size(0) - 1};
  }

 private:
  void check_rows(const char* op, const char* name, const Tensor& tensor) const {
    check_head_rows(op, name, tensor, query);
    check_size(op, name, tensor, 2, query.size(2));
  }
};

// The two forms of the operator; kForward(operator, tensors, keep_log_sum) is the device's.
template <auto kForward>
std::tuple<Tensor, Tensor> attend(const Tensor& query, const Tensor& key, const Tensor& value,
                                  const Tensor& order, const Tensor& offsets, bool keep_log_sum) {
  return kForward("set_attention", {query, key, value, order, offsets}, keep_log_sum);
}

template <auto kForward>
std::tuple<Tensor, Tensor> attend_qk(const Tensor& query_key, const Tensor& value,
                                     const Tensor& order, const Tensor& offsets,
                                     bool keep_log_sum) {
  const char* op = "set_attention_qk";
  const QueryKeyParts parts(op, query_key);
  return kForward(op, {parts.query, parts.key, value, order, offsets}, keep_log_sum);
}

}  // namespace perception3d
