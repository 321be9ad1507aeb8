// Tensors as the arguments of selective scan kernels.
#pragma once

#include <cstdint>
#include <optional>

#include "binding/sequences.h"
#include "common/selective_scan.h"

namespace perception3d {

// The tensors of one call, checked as far as that needs no look at contents.
struct ScanTensors {
  const Tensor& u;
  const Tensor& delta;
  const Tensor& A;
  const Tensor& B;
  const Tensor& C;
  const Tensor& offsets;
  const std::optional<Tensor>& skip;
  const std::optional<Tensor>& gate;
  const std::optional<Tensor>& delta_bias;
  bool softplus;
  const std::optional<Tensor>& order;
  bool reverse;

  int64_t length() const { return u.size(0); }
  int64_t channels() const { return A.size(0); }
  int64_t states() const { return A.size(1); }
  int64_t chunks() const { return (length() + kScanChunk - 1) / kScanChunk; }

  void check(const char* op) const {
    STD_TORCH_CHECK(A.dim() == 2, op, ": A must have 2 dimensions, got ", A.dim());
    STD_TORCH_CHECK(u.dim() == 2, op, ": u must have 2 dimensions, got ", u.dim());
    const ScalarType dtype = compute_type(u);
    check_dense(op, "A", A, u, dtype, 2);
    check_rows(op, "u", u, u, length(), channels());
    check_rows(op, "delta", delta, u, length(), channels());
    check_rows(op, "B", B, u, length(), states());
    check_rows(op, "C", C, u, length(), states());
    if (gate.has_value()) check_rows(op, "gate", *gate, u, length(), channels());
    for (const auto& [name, vector] : {std::pair{"skip", &skip}, {"delta_bias", &delta_bias}}) {
      if (!vector->has_value()) continue;
      check_dense(op, name, **vector, u, dtype, 1);
      check_size(op, name, **vector, 0, channels());
    }
  }

  // The further inputs of the backward pass.
  void check_results(const char* op, const Tensor& grad, const Tensor& checkpoints) const {
    check_rows(op, "grad", grad, u, length(), channels());
    check_dense(op, "checkpoints", checkpoints, u, compute_type(u), 3);
    check_size(op, "checkpoints", checkpoints, 0, chunks());
    check_size(op, "checkpoints", checkpoints, 1, states());
    check_size(op, "checkpoints", checkpoints, 2, channels());
  }

  template <typename Scalar>
  ScanInputs<Scalar> arguments(const char* op) const {
    using Number = Compute<Scalar>;
    return {{sequence_layout(op, u, offsets, order, reverse), channels(), states()},
            rows_of<Scalar>(u),
            rows_of<Scalar>(delta),
            rows_of<Scalar>(B),
            rows_of<Scalar>(C),
            rows_of<Scalar>(gate),
            data_of<Number>(A),
            skip.has_value() ? data_of<Number>(*skip) : nullptr,
            delta_bias.has_value() ? data_of<Number>(*delta_bias) : nullptr,
            softplus};
  }
};

}  // namespace perception3d
