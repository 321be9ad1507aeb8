"""Samples -> Batch."""

import pytest
import torch

from perception3d.data.collate import collate
from perception3d.structures import Boxes3D, Sample, Targets


def sample(name, num_points, num_boxes=None, columns=5):
    targets = None
    if num_boxes is not None:
        targets = Targets(
            Boxes3D(torch.rand(num_boxes, 9)),
            torch.zeros(num_boxes, dtype=torch.int64),
            torch.ones(num_boxes, dtype=torch.int64),
        )
    return Sample(
        name,
        torch.rand(num_points, columns),
        torch.eye(4, dtype=torch.float64) * len(name),
        targets,
    )


def test_points_of_frames_follow_each_other():
    samples = [sample("a", 3, 2), sample("bb", 0, 0), sample("ccc", 2, 1)]
    batch = collate(samples)["batch"]
    assert batch.tokens == ("a", "bb", "ccc")
    assert batch.batch_size == 3
    assert torch.equal(batch.points, torch.cat([s.points for s in samples]))
    assert batch.frame_of_point.tolist() == [0, 0, 0, 2, 2]
    assert batch.frame_of_point.dtype == torch.int32
    assert [len(targets) for targets in batch.targets] == [2, 0, 1]
    assert batch.lidar_to_global[2, 0, 0] == 3
    assert batch.cameras is None


def test_only_empty_frames():
    batch = collate([sample("a", 0), sample("b", 0)])["batch"]
    assert batch.points.shape == (0, 5)
    assert batch.frame_of_point.shape == (0,)
    assert batch.targets is None


def test_targets_need_all_frames():
    assert collate([sample("a", 1, 1), sample("b", 1)])["batch"].targets is None


def test_refusals():
    with pytest.raises(ValueError, match="samples must not be empty"):
        collate([])
    with pytest.raises(ValueError, match=r"equally many columns, got \[4, 5\]"):
        collate([sample("a", 1), sample("b", 1, columns=4)])
