"""The memory tool: what it measures with, and that it sees what a network keeps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perception3d.benchmark.memory import surface_voxels

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import json, torch
from perception3d.benchmark.memory import measure_training_memory, surface_voxels

class Keeps(torch.nn.Module):
    def forward(self, voxels):
        hidden = voxels.features.exp().exp()  # each keeps its result
        return voxels.with_features(hidden.relu())

voxels = surface_voxels(100_000, 64, (400, 400, 32))
measure_training_memory(Keeps(), surface_voxels(10, 64, (400, 400, 32)))
found = measure_training_memory(Keeps(), voxels)
print(json.dumps([found.kept, found.peak]))
"""


def test_voxels_lie_on_sheets_and_are_unique():
    voxels = surface_voxels(1500, 4, (30, 20, 9))
    assert voxels.coords.unique(dim=0).shape == (1500, 4)
    assert voxels.coords.min() >= 0
    assert (voxels.coords.max(0).values < voxels.coords.new_tensor([1, 9, 20, 30])).all()
    with pytest.raises(ValueError, match=r"count must lie in 1\.\.5400"):
        surface_voxels(5401, 4, (30, 20, 9))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc of Linux")
def test_what_is_kept_and_the_peak():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept, peak = json.loads(result.stdout)
    size = 100_000 * 64 * 4
    assert 2.9 * size < kept < 3.6 * size  # two results of exp, one of relu
    # One gradient on top at least, at most four at a time; half a size for the process itself.
    assert kept + 0.9 * size < peak < 7.5 * size
