// The inner loop of scans: one vector of channels through one run.
#pragma once

#include "cpu/scan_tile.h"

namespace perception3d {

// Takes the states of the block through the steps of a run, and writes y (L, D) of its channels.
// It may lie where u does.  `ahead` is asked for a row with every step.
#define P3D_DECLARE(Scalar)                                                        \
  void walk_run(const ScanInputs<Scalar>& in, const RunTile<Compute<Scalar>>& run, \
                RowsAhead<Scalar>& ahead, ChannelBlock<Compute<Scalar>>& block,    \
                StepTile<Compute<Scalar>>& steps, Scalar* y);
P3D_FOR_EACH_STORAGE(P3D_DECLARE)
#undef P3D_DECLARE

}  // namespace perception3d
