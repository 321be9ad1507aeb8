// Tensors as the arguments of linear attention kernels; the checks that need no look at contents.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "binding/head_rows.h"
#include "binding/storage_types.h"
#include "common/check.h"
#include "common/linear_attention.h"

namespace perception3d {

// The tensors of one call, checked as far as that needs no look at contents.
struct LinearAttentionTensors {
  const Tensor& query;
  const Tensor& key;
  const Tensor& value;
  const Tensor& offsets;
  const std::optional<Tensor>& order;
  double epsilon;

  void check(const char* op) const {
    check_head_rows(op, "query", query, query);
    check_head_rows(op, "key", key, query);
    check_head_rows(op, "value", value, query);
    check_size(op, "key", key, 2, query.size(2));
    check_index(op, "offsets", offsets);
    STD_TORCH_CHECK(offsets.size(0) >= 1, op, ": offsets must not be empty");
    if (order.has_value()) {
      check_index(op, "order", *order);
      check_size(op, "order", *order, 0, query.size(0));
    }
  }

  template <typename Scalar>
  LinearAttention<Scalar> arguments() const {
    return {head_rows<Scalar>(query),
            head_rows<Scalar>(key),
            head_rows<Scalar>(value),
            offsets.const_data_ptr<int64_t>(),
            offsets.size(0) - 1,
            order.has_value() ? order->const_data_ptr<int64_t>() : nullptr,
            query.size(1),
            query.size(2),
            value.size(2),
            static_cast<Compute<Scalar>>(epsilon)};
  }

 private:
  void check_index(const char* op, const char* name, const Tensor& tensor) const {
    STD_TORCH_CHECK(tensor.device() == query.device(), op, ": ", name,
                    " must lie on the device of query");
    STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Long && tensor.dim() == 1, op, ": ", name,
                    " must have 1 dimension and be int64");
    STD_TORCH_CHECK(tensor.is_contiguous(), op, ": ", name, " must be contiguous");
  }
};

// The three parts of qkv (rows, 3, heads, width), in place.
struct QkvParts {
  Tensor query, key, value;

  QkvParts(const char* op, const Tensor& qkv) {
    STD_TORCH_CHECK(qkv.dim() == 4, op, ": qkv must have 4 dimensions, got ", qkv.dim());
    check_size(op, "qkv", qkv, 1, 3);
    query = torch::stable::select(qkv, 1, 0);
    key = torch::stable::select(qkv, 1, 1);
    value = torch::stable::select(qkv, 1, 2);
  }
};

inline void check_grad(const char* op, const Tensor& grad, const LinearAttentionTensors& tensors) {
  check_head_rows(op, "grad", grad, tensors.query);
  check_size(op, "grad", grad, 2, tensors.value.size(2));
}

}  // namespace perception3d
