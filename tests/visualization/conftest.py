from collections.abc import Callable

import pytest
import torch

from perception3d.structures import Boxes3D, Cameras, Detections, Sample, Targets

CLASSES = ("car", "pedestrian")


def _boxes(rows):
    return Boxes3D(torch.tensor([[*row, 0.0, 0.0] for row in rows]).reshape(-1, 9))


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """Frames from rows of 7 box numbers; annotations where rows are given."""

    def make(boxes=None, labels=None, points=None, cameras=None, token="frame-1"):
        targets = None
        if boxes is not None:
            labels = torch.tensor([0] * len(boxes) if labels is None else labels)
            targets = Targets(
                _boxes(boxes), labels.long(), torch.ones(len(boxes), dtype=torch.int64)
            )
        if points is None:
            points = torch.zeros((0, 4))
        return Sample(token, points, torch.eye(4, dtype=torch.float64), targets, cameras)

    return make


@pytest.fixture
def make_detections() -> Callable[..., Detections]:
    def make(boxes, labels=None, scores=None):
        labels = torch.tensor([0] * len(boxes) if labels is None else labels)
        scores = torch.tensor([0.5] * len(boxes) if scores is None else scores)
        return Detections(_boxes(boxes), scores.float(), labels.long())

    return make


@pytest.fixture
def front_camera() -> Cameras:
    """One camera at the LiDAR that looks along +y, 200 x 100 pixels, focal length 100."""
    to_camera = torch.tensor(
        [[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]]
    ).reshape(1, 4, 4)
    intrinsics = torch.tensor([[100.0, 0, 100], [0, 100.0, 50], [0, 0, 1]]).reshape(1, 3, 3)
    images = torch.full((1, 3, 100, 200), 40, dtype=torch.uint8)
    return Cameras(("CAM_FRONT",), images, to_camera, intrinsics)
