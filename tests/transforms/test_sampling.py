"""Filters and shuffling."""

import numpy as np
import pytest
import torch

from perception3d.structures import Boxes3D, Sample, Targets
from perception3d.transforms import FilterBoxes, FilterRange, Pipeline, ShufflePoints

RANGE = (-10.0, -20.0, -2.0, 10.0, 20.0, 4.0)


def sample(positions, boxes=None, num_points=None):
    points = torch.zeros(len(positions), 5)
    points[:, :3] = torch.tensor(positions).reshape(-1, 3)
    points[:, 3] = torch.arange(len(positions))
    targets = None
    if boxes is not None:
        tensor = torch.ones(len(boxes), 9)
        tensor[:, :3] = torch.tensor(boxes).reshape(-1, 3)
        counts = torch.tensor(num_points or [1] * len(boxes), dtype=torch.int64)
        targets = Targets(Boxes3D(tensor), torch.arange(len(boxes)), counts)
    return Sample("frame", points, torch.eye(4, dtype=torch.float64), targets)


def apply(transform, value, seed=0):
    return transform(value, np.random.default_rng(seed))


class TestFilterRange:
    POSITIONS = (
        (0.0, 0.0, 0.0),
        (10.0, 20.0, 4.0),  # bounds are inside
        (-10.0, -20.0, -2.0),
        (10.1, 0.0, 0.0),
        (0.0, -20.1, 0.0),
        (0.0, 0.0, 4.1),
        (0.0, 0.0, -9.0),
    )

    def test_points_and_boxes(self):
        result = apply(FilterRange(RANGE), sample(self.POSITIONS, self.POSITIONS))
        assert result.points[:, 3].tolist() == [0, 1, 2]
        assert result.targets.labels.tolist() == [0, 1, 2]

    def test_any_height_of_points(self):
        result = apply(FilterRange(RANGE, check_z=False), sample(self.POSITIONS, self.POSITIONS))
        assert result.points[:, 3].tolist() == [0, 1, 2, 5, 6]
        assert result.targets.labels.tolist() == [0, 1, 2]

    def test_nothing_left(self):
        result = apply(FilterRange(RANGE), sample([(99.0, 0.0, 0.0)], [(99.0, 0.0, 0.0)]))
        assert result.points.shape == (0, 5)
        assert len(result.targets) == 0
        assert apply(FilterRange(RANGE), sample([])).targets is None

    @pytest.mark.parametrize("limits", [(0, 0, 0, 1, 1), (0, 0, 0, 1, 0, 1)])
    def test_wrong_range(self, limits):
        with pytest.raises(ValueError, match="point_cloud_range must be"):
            FilterRange(limits)


class TestFilterBoxes:
    VALUE = sample([], [(0.0, 0.0, 0.0)] * 4, num_points=[0, 1, 5, 9])

    @pytest.mark.parametrize(
        ("filter_boxes", "kept"),
        [
            (FilterBoxes(), [1, 2, 3]),
            (FilterBoxes(min_points=0), [0, 1, 2, 3]),
            (FilterBoxes(min_points=5), [2, 3]),
            (FilterBoxes(min_points=1, labels=(0, 3)), [3]),
            (FilterBoxes(labels=()), []),
        ],
    )
    def test_kept(self, filter_boxes, kept):
        assert apply(filter_boxes, self.VALUE).targets.labels.tolist() == kept

    def test_not_annotated(self):
        assert apply(FilterBoxes(), sample([])).targets is None


def test_shuffle():
    value = sample(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    result = apply(ShufflePoints(), value)
    assert not torch.equal(result.points, value.points)
    assert torch.equal(result.points[result.points[:, 3].argsort()], value.points)
    assert torch.equal(result.points, apply(ShufflePoints(), value).points)
    assert not torch.equal(result.points, apply(ShufflePoints(), value, seed=1).points)
    assert apply(ShufflePoints(), sample([])).points.shape == (0, 5)


def test_pipeline_from_config():
    pipeline = Pipeline(
        [{"type": FilterRange, "point_cloud_range": RANGE}, {"type": ShufflePoints}]
    )
    assert [type(step) for step in pipeline.transforms] == [FilterRange, ShufflePoints]
    with pytest.raises(TypeError, match="point_cloud_rnage"):
        Pipeline([{"type": FilterRange, "point_cloud_rnage": RANGE}])
