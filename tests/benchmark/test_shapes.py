"""Figures of grids, windows and sequences."""

import pytest
import torch
from torch.nn.functional import conv3d

from perception3d.benchmark.official_grids import OFFICIAL_GRIDS
from perception3d.benchmark.shapes import (
    Downsample,
    GridSettings,
    Partition,
    Stage,
    measure_shapes,
    summarise,
)
from perception3d.benchmark.workloads import MissingData, make_workload

# Published shapes of the real frame: stage -> voxels, windows, largest window, sets.
REAL = {
    "dsvt_waymo_pillar": {"pillars": (5092, 384, 124, 430)},
    "dsvt_nuscenes_pillar": {"pillars": (5654, 98, 472, 131)},
    "dsvt_waymo_voxel": {
        "stage 0": (7006, 384, 285, 440),
        "stage 1": (6118, 384, 181, 427),
        "stage 2": (5401, 384, 156, 414),
        "stage 3": (5092, 384, 124, 411),
    },
    "scatterformer_waymo": {
        "voxels": (7009, None, None, None),
        "stage 1": (9652, 393, 252, None),
        "stage 2": (8711, 170, 300, None),
    },
    "scatterformer_nuscenes": {
        "voxels": (7874, None, None, None),
        "stage 1": (10793, 188, 499, None),
        "stage 2": (9395, 63, 683, None),
    },
    "voxel_mamba_waymo": {
        "stage 0": (7006, None, None, None),
        "stage 1": (9647, None, None, None),
        "stage 1 low": (8706, None, None, None),
        "stage 2": (9514, None, None, None),
        "stage 2 low": (2477, None, None, None),
        "BEV cells": (5018, None, None, None),
    },
}
POINTS = {"dsvt_nuscenes_pillar": 32330, "dsvt_waymo_pillar": 31544, "scatterformer_waymo": 31547}


@pytest.mark.nuscenes
@pytest.mark.parametrize("name", REAL)
def test_the_real_frame_has_the_known_shapes(name):
    try:
        points = make_workload("f1").points
    except MissingData as missing:
        pytest.skip(str(missing))
    figures = measure_shapes(points, OFFICIAL_GRIDS[name])
    assert set(REAL) == set(OFFICIAL_GRIDS)
    assert list(figures) == list(REAL[name])
    for stage, wanted in REAL[name].items():
        names = ("voxels", "windows 0", "voxels per window 0 max", "sets 0")
        assert tuple(figures[stage].get(key) for key in names) == wanted
    if name in POINTS:
        assert next(iter(figures.values()))["points"] == POINTS[name]
    if name == "dsvt_waymo_pillar":
        pillars = figures["pillars"]
        assert pillars["windows 1"] == 168
        assert pillars["sets 1"] == 259
        assert round(pillars["voxels per window 0 mean"]) == 13
        assert pillars["voxels per window 0 median"] == 6
        assert round(pillars["voxels per window 0 90 %"]) == 32
        assert round(pillars["slots filled 0"], 2) == 0.33
        assert round(pillars["slots filled 1"], 2) == 0.55


def test_by_hand():
    grid = GridSettings(
        "grid",
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 8.0, 8.0, 1.0),
        (
            Stage("fine", partitions=(Partition((4, 4, 1), set_size=2),)),
            Stage("side", (Downsample((8, 8, 1)),), aside=True),
            Stage("coarse", (Downsample((2, 2, 1)),)),
        ),
    )
    # Cells (0,0) twice, (1,0), (1,1), (7,7); one point outside.
    points = torch.tensor([[0.1, 0.1], [0.9, 0.2], [1.5, 0.5], [1.5, 1.5], [7.5, 7.5], [9.0, 0.0]])
    figures = measure_shapes(torch.cat([points, torch.full((6, 1), 0.5)], 1), grid)
    assert figures == {
        "fine": {
            "points": 5.0,
            "voxels": 4.0,
            "windows 0": 2.0,
            "voxels per window 0 mean": 2.0,
            "voxels per window 0 median": 2.0,
            "voxels per window 0 90 %": pytest.approx(2.8),
            "voxels per window 0 max": 3.0,
            "sets 0": 3.0,
            "slots filled 0": pytest.approx(4 / 6),
        },
        "side": {"voxels": 1.0},
        "coarse": {"voxels": 2.0},
    }


@pytest.mark.parametrize(
    ("stride", "kernel", "padding"),
    [
        ((1, 1, 2), (1, 1, 3), (0, 0, 0)),
        ((2, 2, 2), (3, 3, 3), (1, 1, 1)),
        ((4, 4, 4), (5, 5, 5), (2, 2, 2)),
        ((2, 1, 3), (2, 3, 3), (0, 1, 0)),
    ],
)
def test_a_step_reaches_the_cells_of_a_dense_convolution(stride, kernel, padding):
    generator = torch.Generator().manual_seed(0)
    grid = (9, 8, 7)
    dense = torch.rand(grid, generator=generator) < 0.05
    step = Downsample(stride, kernel, padding)
    reached = conv3d(dense[None, None].float(), torch.ones(1, 1, *kernel), None, stride, padding)[
        0, 0
    ]
    assert step.grid(grid) == tuple(reached.shape)
    assert torch.equal(step.apply(dense.nonzero(), grid), (reached > 0).nonzero())


def test_pooling_pads_the_end_of_the_grid():
    step = Downsample((4, 1, 1))
    assert step.grid((9, 2, 1)) == (3, 2, 1)
    cells = torch.tensor([[0, 0, 0], [3, 0, 0], [8, 1, 0]])
    assert step.apply(cells, (9, 2, 1)).tolist() == [[0, 0, 0], [2, 1, 0]]


def test_a_frame_without_points_in_range():
    far = torch.full((3, 4), 1e4)
    for grid in OFFICIAL_GRIDS.values():
        for figures in measure_shapes(far, grid).values():
            assert figures["voxels"] == 0
            assert figures.get("sets 0", 0) == 0
            assert "voxels per window 0 mean" not in figures


def test_points_are_not_changed():
    points = make_workload("tiny").points
    before = points.clone()
    measure_shapes(points, OFFICIAL_GRIDS["dsvt_waymo_pillar"])
    assert torch.equal(points, before)


def test_summary_over_frames():
    frames = [{"s": {"voxels": 2.0}}, {"s": {"voxels": 6.0, "sets 0": 1.0}}]
    assert summarise(frames) == {
        "s": {
            "voxels": {"mean": 4.0, "min": 2.0, "max": 6.0},
            "sets 0": {"mean": 1.0, "min": 1.0, "max": 1.0},
        }
    }
