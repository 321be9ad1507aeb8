#include "cpu/set_transformer.h"

#include <numeric>
#include <vector>

#include "cpu/row_map.h"
#include "cpu/set_attention.h"

namespace perception3d {
namespace {

// The maps with packed weights, and what their sums start with for every row of the table.
template <typename Number>
struct PackedLayer {
  PackedLayer(const SetTransformer<Number>& layer, int threads)
      : query_key(layer.query_key, threads),
        value(layer.value, threads),
        out(layer.out, threads),
        first(layer.first, threads),
        second(layer.second, threads),
        starts(layer.table.rows * query_key.columns + kUnit<Number>) {
    map_rows(query_key, layer.table, starts.get(), threads);
  }

  int64_t products() const {
    int64_t sum = 0;
    for (const RowMap<Number>* map : {&query_key, &value, &out, &first, &second}) {
      sum += map->depth * map->columns;
    }
    return sum;
  }

  RowMap<Number> query_key, value, out, first, second;
  Pad<Number> starts;  // (rows of the table, columns), and a unit
};

// Sets that are worked on together.
struct SetBlock {
  int64_t first_set, last_set;
};

template <typename Number>
struct LayerCall {
  const SetTransformer<Number>& layer;
  const PackedLayer<Number>& packed;
  const std::vector<SetBlock>& blocks;
  Number* result;

  int64_t offset(int64_t set) const { return layer.sets.offsets[set]; }
  int64_t width() const { return packed.out.columns; }

  SomeRows<Number> rows(const SetBlock& block) const {
    const int64_t begin = offset(block.first_set);
    return {layer.rows.data, offset(block.last_set) - begin, layer.rows.columns, layer.rows.step,
            layer.sets.order + begin};
  }
};

// What one thread keeps of a block, in the order of its sets.  Whatever is not needed any more
// makes room for what follows.
template <typename Number>
struct BlockScratch {
  Pad<Number> query_key_hidden, value_attended, mixed_result;
  std::vector<int64_t> order, offsets;  // of the sets in the scratch: 0, 1, 2, ...
  std::vector<AddNorm<Number>> norms;
};

template <typename Number>
void attend_block(const LayerCall<Number>& call, const SetBlock& block,
                  BlockScratch<Number>& scratch) {
  const int64_t width = call.width(), head_width = width / call.layer.heads;
  const Number* query = scratch.query_key_hidden.get();
  const AttentionRows<Number> rows{{query, 2 * width, head_width},
                                   {query + width, 2 * width, head_width},
                                   {scratch.value_attended.get(), width, head_width},
                                   call.layer.heads,
                                   head_width};
  scratch.offsets.clear();
  for (int64_t set = block.first_set; set <= block.last_set; ++set) {
    scratch.offsets.push_back(call.offset(set) - call.offset(block.first_set));
  }
  const RowSets sets{scratch.order.data(), scratch.offsets.data(),
                     block.last_set - block.first_set};
  set_attention<Number>(rows, sets, scratch.mixed_result.get(), nullptr, 1);
}

// The norms of a block.
template <typename Number>
void place_norms(const LayerCall<Number>& call, const SomeRows<Number>& rows,
                 BlockScratch<Number>& scratch) {
  const AddNorms<Number>& norms = call.layer.norms;
  scratch.norms.assign(norms.stages, norms.stages + norms.count);
  for (AddNorm<Number>& norm : scratch.norms) norm.order = rows.order;
  AddNorm<Number>& first = scratch.norms[0];
  first.kept = rows.data;
  first.step = rows.step;
  AddNorm<Number>& second = scratch.norms[1];
  second.kept = scratch.value_attended.get();
  second.step = call.width();
  second.order = nullptr;
}

template <typename Number>
P3D_INLINE void run_block(const LayerCall<Number>& call, const SetBlock& block,
                          const SetBlock& next, BlockScratch<Number>& scratch) {
  const PackedLayer<Number>& packed = call.packed;
  const SomeRows<Number> rows = call.rows(block);
  const int64_t width = call.width();
  const auto held = [&](const Number* data, int64_t columns) {
    return SomeRows<Number>{data, rows.count, columns, columns, nullptr};
  };
  Number* query_key = scratch.query_key_hidden.get();
  Number* value = scratch.value_attended.get();
  Number* mixed = scratch.mixed_result.get();
  map_block<Number>(packed.query_key, {rows, query_key, packed.starts.get(), call.layer.index, {}});
  map_block<Number>(packed.value, {rows, value, nullptr, nullptr, {}});
  attend_block(call, block, scratch);
  place_norms(call, rows, scratch);
  const AddNorm<Number>* norms = scratch.norms.data();
  const Number epsilon = call.layer.norms.epsilon;
  Number *attended = value, *hidden = query_key, *result = mixed;
  map_block<Number>(packed.out, {held(mixed, width), attended, nullptr, nullptr, {}});
  add_and_norm({norms, 1, epsilon}, width, rows.count, attended, attended, nullptr);
  map_block<Number>(packed.first, {held(attended, width), hidden, nullptr, nullptr, {}});
  map_block<Number>(packed.second, {held(hidden, packed.first.columns), result, nullptr, nullptr,
                                    call.rows(next)});
  add_and_norm({norms + 1, call.layer.norms.count - 1, epsilon}, width, rows.count, result,
               call.result, rows.order);
}

template <typename Number>
P3D_INLINE void run_blocks_of(const LayerCall<Number>& call, int64_t begin, int64_t end,
                              BlockScratch<Number>& scratch) {
  for (int64_t b = begin; b < end; ++b) {
    const SetBlock none{call.blocks[b].last_set, call.blocks[b].last_set};
    run_block(call, call.blocks[b], b + 1 < end ? call.blocks[b + 1] : none, scratch);
  }
}

P3D_CLONES void run_blocks(const LayerCall<float>& call, int64_t begin, int64_t end,
                           BlockScratch<float>& scratch) {
  run_blocks_of(call, begin, end, scratch);
}
P3D_CLONES void run_blocks(const LayerCall<double>& call, int64_t begin, int64_t end,
                           BlockScratch<double>& scratch) {
  run_blocks_of(call, begin, end, scratch);
}

// Blocks of whole sets, of at least `rows` rows each but for the last.
std::vector<SetBlock> list_blocks(const RowSets& sets, int64_t rows) {
  std::vector<SetBlock> blocks;
  int64_t first = 0;
  for (int64_t set = 0; set < sets.count; ++set) {
    if (sets.offsets[set + 1] - sets.offsets[first] < rows && set + 1 < sets.count) continue;
    blocks.push_back({first, set + 1});
    first = set + 1;
  }
  return blocks;
}

template <typename Number>
BlockScratch<Number> make_scratch(const LayerCall<Number>& call) {
  int64_t rows = 0;
  for (const SetBlock& block : call.blocks) rows = std::max(rows, call.rows(block).count);
  const int64_t width = call.width(), wide = std::max(2 * width, call.packed.first.columns);
  BlockScratch<Number> scratch{Pad<Number>(rows * wide),
                               Pad<Number>(rows * width),
                               Pad<Number>(rows * width),
                               std::vector<int64_t>(rows),
                               {},
                               {}};
  std::iota(scratch.order.begin(), scratch.order.end(), 0);
  return scratch;
}

}  // namespace

template <typename Number>
void set_transformer(const SetTransformer<Number>& layer, Number* result, int threads) {
  const PackedLayer<Number> packed(layer, threads);
  const RowPlan plan = plan_rows(layer.rows.rows, packed.products(), threads);
  const std::vector<SetBlock> blocks = list_blocks(layer.sets, plan.block_rows);
  const LayerCall<Number> call{layer, packed, blocks, result};
  const int64_t turn = plan.task_rows / plan.block_rows, count = blocks.size();
  for_each_dynamic_with(
      plan.workers, (count + turn - 1) / turn, [&] { return make_scratch(call); },
      [&](BlockScratch<Number>& scratch, int64_t task) {
        run_blocks(call, task * turn, std::min(count, (task + 1) * turn), scratch);
      });
}

template void set_transformer(const SetTransformer<float>&, float*, int);
template void set_transformer(const SetTransformer<double>&, double*, int);

}  // namespace perception3d
