#include "cpu/linear.h"

#include "cpu/row_map.h"

namespace perception3d {
namespace {

template <typename Number>
struct LinearCall {
  RowMatrix<Number> rows;
  const RowMap<Number>& map;
  Number* result;
  int64_t block_rows;
};

// Rows begin .. end - 1 of the result.
template <typename Number>
P3D_INLINE void map_task_of(const LinearCall<Number>& call, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += call.block_rows) {
    const int64_t next = std::min(row + call.block_rows, end);
    MapBlock<Number> block{};
    block.rows = rows_between(call.rows, row, next);
    block.next = rows_between(call.rows, next, std::min(next + call.block_rows, end));
    block.result = call.result + row * call.map.columns;
    map_block(call.map, block);
  }
}

P3D_CLONES void map_task(const LinearCall<float>& call, int64_t begin, int64_t end) {
  map_task_of(call, begin, end);
}
P3D_CLONES void map_task(const LinearCall<double>& call, int64_t begin, int64_t end) {
  map_task_of(call, begin, end);
}

}  // namespace

template <typename Number>
void map_rows(const RowMap<Number>& map, const RowMatrix<Number>& rows, Number* result,
              int threads) {
  const RowPlan plan = plan_rows(rows.rows, map.depth * map.columns, threads);
  const LinearCall<Number> call{rows, map, result, plan.block_rows};
  for_each_dynamic(
      plan.workers, (rows.rows + plan.task_rows - 1) / plan.task_rows, 1, [&](int64_t task) {
        map_task(call, task * plan.task_rows, std::min(rows.rows, (task + 1) * plan.task_rows));
      });
}

template <typename Number>
void linear(const RowMatrix<Number>& rows, const LinearMap<Number>& map, Number* result,
            int threads) {
  map_rows(RowMap<Number>(map, threads), rows, result, threads);
}

#define P3D_INSTANTIATE(Number)                                                          \
  template void map_rows(const RowMap<Number>&, const RowMatrix<Number>&, Number*, int); \
  template void linear(const RowMatrix<Number>&, const LinearMap<Number>&, Number*, int);
P3D_INSTANTIATE(float)
P3D_INSTANTIATE(double)
#undef P3D_INSTANTIATE

}  // namespace perception3d
