#include "cpu/depthwise_conv.h"

#include <algorithm>

#include "cpu/depthwise_rows.h"
#include "cpu/neighbour_check.h"

namespace perception3d {
namespace {

using namespace depthwise;

constexpr int64_t kNumbersPerWorker = 65536;
constexpr int64_t kRowsPerTurn = 128;
// Weight gradients are summed over blocks of rows in float, then over these sums in double.  The
// blocks depend on nothing but the number of rows, so the result is the same on any threads.
constexpr int64_t kRowsPerSum = 1024;
constexpr int64_t kMostSums = 256;

template <typename Scalar>
P3D_INLINE void forward_of(const Group<Scalar>& group, const Rows<Scalar>& rows,
                           const Scalar* features, Scalar* result) {
  ForwardRow<Scalar> piece{features + group.first, nullptr, group.weight.data(),
                           rows.present,           0,       rows.columns,
                           group.channels,         nullptr};
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    piece.count = list_present(group.neighbours + row * group.taps, group.taps, rows.present);
    if (rows.residual) piece.residual = features + row * rows.columns + group.first;
    piece.result = result + row * rows.columns + group.first;
    for_each_piece(group.channels, piece);
  }
}

template <bool kFeatures, bool kWeight, typename Scalar>
P3D_INLINE void backward_of(const Group<Scalar>& group, const Rows<Scalar>& rows,
                            const Scalar* grad, const Scalar* features, Scalar* grad_features,
                            Compute<Scalar>* grad_weight) {
  BackwardRow<Scalar, kFeatures, kWeight> piece{
      grad + group.first, nullptr, nullptr,      group.weight.data(),
      rows.present,       0,       rows.columns, group.taps,
      group.channels,     nullptr, grad_weight};
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t place = row * rows.columns + group.first;
    piece.count = list_present(group.neighbours + row * group.taps, group.taps, rows.present);
    if (rows.residual) piece.residual = grad + place;
    if (kFeatures) piece.grad_features = grad_features + place;
    if (kWeight) piece.features = features + place;
    for_each_piece(group.channels, piece);
  }
}

template <typename Scalar>
P3D_INLINE void pass_on_of(const std::vector<ChannelRange>& parts, const Rows<Scalar>& rows,
                           const Scalar* source, Scalar* target) {
  for (const ChannelRange& part : parts) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t place = row * rows.columns + part.first;
      for_each_piece(part.count, PassedRow<Scalar>{source + place, rows.residual, target + place});
    }
  }
}

// One function per scalar type, compiled for several machines.
#define P3D_ROWS(Scalar)                                                                      \
  P3D_CLONES void pass_on(const std::vector<ChannelRange>& parts, const Rows<Scalar>& rows,   \
                          const Scalar* source, Scalar* target) {                             \
    pass_on_of(parts, rows, source, target);                                                  \
  }                                                                                           \
  P3D_CLONES void forward(const Group<Scalar>& group, const Rows<Scalar>& rows,               \
                          const Scalar* features, Scalar* result) {                           \
    forward_of(group, rows, features, result);                                                \
  }                                                                                           \
  P3D_CLONES void backward(const Group<Scalar>& group, const Rows<Scalar>& rows,              \
                           const Scalar* grad, const Scalar* features, Scalar* grad_features, \
                           Compute<Scalar>* grad_weight) {                                    \
    if (grad_weight == nullptr) {                                                             \
      backward_of<true, false>(group, rows, grad, features, grad_features, grad_weight);      \
    } else if (grad_features == nullptr) {                                                    \
      backward_of<false, true>(group, rows, grad, features, grad_features, grad_weight);      \
    } else {                                                                                  \
      backward_of<true, true>(group, rows, grad, features, grad_features, grad_weight);       \
    }                                                                                         \
  }
P3D_FOR_EACH_STORAGE(P3D_ROWS)
#undef P3D_ROWS

// What all threads share: converted weights, and the channels of no group.
template <typename Scalar>
struct Plan {
  std::vector<Group<Scalar>> groups;
  std::vector<ChannelRange> passed_on;
  int64_t most_taps = 0;
  int64_t work = 0;  // numbers read per row

  explicit Plan(const DepthwiseConv<Scalar>& conv)
      : passed_on(conv.passed_on()), work(conv.columns) {
    for (const DepthwiseGroup<Scalar>& given : conv.groups) {
      Group<Scalar> group{given.neighbours, {}, given.taps, given.first, given.channels};
      group.weight.resize(given.taps * given.channels);
      for (size_t i = 0; i < group.weight.size(); ++i) group.weight[i] = load(given.weight[i]);
      most_taps = std::max(most_taps, given.taps);
      work += given.taps * (given.channels + 1);
      groups.push_back(std::move(group));
    }
  }
};

// Notes a fault in some rows, if there is one; says whether there is.
template <typename Scalar>
bool note_fault(const Plan<Scalar>& plan, const Rows<Scalar>& rows, int64_t num_rows,
                NeighbourFault& fault) {
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    const Group<Scalar>& group = plan.groups[i];
    const int64_t row = find_bad_row(group.neighbours, group.taps, rows.begin, rows.end, num_rows);
    if (row < 0) continue;
#pragma omp critical(p3d_depthwise_fault)
    fault = NeighbourFault{static_cast<int64_t>(i), row};
    return true;
  }
  return false;
}

}  // namespace

template <typename Scalar>
NeighbourFault depthwise_conv(const DepthwiseConv<Scalar>& conv, const Scalar* features,
                              Scalar* result, int threads) {
  const Plan<Scalar> plan(conv);
  const int workers = worker_count(threads, conv.rows * plan.work, kNumbersPerWorker);
  const int64_t turns = (conv.rows + kRowsPerTurn - 1) / kRowsPerTurn;
  NeighbourFault fault{-1, -1};
  for_each_dynamic(workers, turns, 1, [&](int64_t turn) {
    std::vector<Present> present(plan.most_taps);
    const int64_t begin = turn * kRowsPerTurn;
    const Rows<Scalar> rows{begin, std::min(conv.rows, begin + kRowsPerTurn), conv.columns,
                            conv.residual, present.data()};
    if (note_fault(plan, rows, conv.rows, fault)) return;
    for (const Group<Scalar>& group : plan.groups) forward(group, rows, features, result);
    pass_on(plan.passed_on, rows, features, result);
  });
  return fault;
}

template <typename Scalar>
NeighbourFault depthwise_conv_backward(const DepthwiseConv<Scalar>& conv, const Scalar* grad,
                                       const Scalar* features, Scalar* grad_features,
                                       const std::vector<Scalar*>& grad_weight, int threads) {
  typedef Compute<Scalar> Number;
  const Plan<Scalar> plan(conv);
  const int workers = worker_count(threads, 2 * conv.rows * plan.work, kNumbersPerWorker);
  const int64_t turns = std::min(kMostSums, (conv.rows + kRowsPerSum - 1) / kRowsPerSum);
  int64_t num_weights = 0;
  for (const Group<Scalar>& group : plan.groups) num_weights += group.weight.size();
  std::vector<Number> sums(grad_weight.empty() ? 0 : turns * num_weights);
  NeighbourFault fault{-1, -1};
  for_each_dynamic(workers, turns, 1, [&](int64_t turn) {
    std::vector<Present> present(plan.most_taps);
    const int64_t begin = block_begin(conv.rows, turns, turn);
    const Rows<Scalar> rows{begin, block_begin(conv.rows, turns, turn + 1), conv.columns,
                            conv.residual, present.data()};
    if (note_fault(plan, rows, conv.rows, fault)) return;
    Number* sum = sums.empty() ? nullptr : sums.data() + turn * num_weights;
    for (const Group<Scalar>& group : plan.groups) {
      backward(group, rows, grad, features, grad_features, sum);
      if (sum != nullptr) sum += group.weight.size();
    }
    if (grad_features != nullptr) pass_on(plan.passed_on, rows, grad, grad_features);
  });
  int64_t first = 0;
  for (size_t i = 0; i < grad_weight.size(); ++i) {
    const int64_t size = static_cast<int64_t>(plan.groups[i].weight.size());
    for (int64_t place = 0; place < size; ++place) {
      double total = 0;
      for (int64_t turn = 0; turn < turns; ++turn) {
        total += sums[turn * num_weights + first + place];
      }
      store(static_cast<Number>(total), grad_weight[i][place]);
    }
    first += size;
  }
  return fault;
}

#define P3D_INSTANTIATE(Scalar)                                                                \
  template NeighbourFault depthwise_conv(const DepthwiseConv<Scalar>&, const Scalar*, Scalar*, \
                                         int);                                                 \
  template NeighbourFault depthwise_conv_backward(const DepthwiseConv<Scalar>&, const Scalar*, \
                                                  const Scalar*, Scalar*,                      \
                                                  const std::vector<Scalar*>&, int);
P3D_FOR_EACH_STORAGE(P3D_INSTANTIATE)
#undef P3D_INSTANTIATE

}  // namespace perception3d
