// A whole layer of a set transformer: attention inside sets, feed-forward network, norms.
#pragma once

#include "common/set_attention.h"
#include "cpu/add_norm.h"
#include "cpu/linear.h"

namespace perception3d {

// For rows x of C numbers, and rows p of a table that say where they are:
//   attended = norms[0](out(attention(query_key(x + p[index]), value(x))) + x)
//   result   = norms[1](second(first(attended)) + attended), then the further norms of their kept
//              rows.
// query_key: C to 2 C, queries first; value, out: C to C.  The kept rows of the first two norms are
// not read.
template <typename Number>
struct SetTransformer {
  RowMatrix<Number> rows, table;
  const int64_t* index;
  RowSets sets;
  int64_t heads;
  LinearMap<Number> query_key, value, out, first, second;
  AddNorms<Number> norms;
};

// result (rows, C), contiguous.  A block of sets goes through the whole layer while it lies in the
// cache, so sets should be short.  The same on any number of threads, and for any other sets.
template <typename Number>
void set_transformer(const SetTransformer<Number>& layer, Number* result, int threads);

}  // namespace perception3d
