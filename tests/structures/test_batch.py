"""Samples, batches, targets, cameras and detections: checks, moving and picking."""

import pytest
import torch

from perception3d.structures import Batch, Boxes3D, Cameras, Detections, Sample, Targets

POSE = torch.eye(4, dtype=torch.float64)


def some_targets(count: int) -> Targets:
    rows = torch.arange(count)
    return Targets(Boxes3D(torch.rand(count, 9)), rows, rows + 10)


def some_cameras() -> Cameras:
    images = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
    return Cameras(("A", "B"), images, torch.eye(4).repeat(2, 1, 1), torch.eye(3).repeat(2, 1, 1))


def some_batch(**changes: object) -> Batch:
    fields: dict = {
        "tokens": ("a", "b"),
        "points": torch.rand(5, 4),
        "frame_of_point": torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32),
        "lidar_to_global": POSE.repeat(2, 1, 1),
        "augmentation": POSE.repeat(2, 1, 1),
    }
    return Batch(**fields | changes)


def test_batch_counts_frames_and_moves_everything():
    batch = some_batch(targets=(some_targets(2), some_targets(0)), cameras=(some_cameras(),) * 2)
    assert batch.batch_size == 2
    moved = batch.to("cpu")
    assert torch.equal(moved.points, batch.points)
    assert moved.targets is not None
    assert [len(targets) for targets in moved.targets] == [2, 0]
    assert moved.cameras is not None
    assert moved.cameras[0].names == ("A", "B")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": torch.rand(5)}, ValueError, r"points must be \(P, F\) float32"),
        ({"points": torch.rand(5, 4).double()}, TypeError, r"got \(5, 4\) float64"),
        ({"frame_of_point": torch.zeros(4).int()}, ValueError, r"frame_of_point must be \(5,\)"),
        ({"frame_of_point": torch.zeros(5).long()}, TypeError, "int64"),
        ({"lidar_to_global": POSE[None]}, ValueError, r"lidar_to_global must be \(2, 4, 4\)"),
        ({"augmentation": POSE.repeat(2, 1, 1).float()}, TypeError, "augmentation must be"),
        ({"targets": (some_targets(1),)}, ValueError, r"one entry per frame \(2\), got 1"),
        ({"cameras": (some_cameras(),) * 3}, ValueError, r"one entry per frame \(2\), got 3"),
    ],
)
def test_bad_batches_are_refused(changes: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        some_batch(**changes)


def test_targets_are_taken_by_rows_and_by_mask():
    targets = some_targets(4)
    assert targets.take(torch.tensor([3, 0])).labels.tolist() == [3, 0]
    assert targets.take(targets.labels > 1).num_points.tolist() == [12, 13]
    assert len(targets.take(torch.zeros(4, dtype=torch.bool))) == 0
    other = targets.with_boxes(targets.boxes.translated((1, 0, 0)))
    assert other.labels is targets.labels
    with pytest.raises(ValueError, match=r"labels must be \(3,\) int64"):
        targets.with_boxes(targets.boxes[:3])


def test_detections_are_checked_and_taken():
    boxes = Boxes3D(torch.rand(3, 9))
    found = Detections(boxes, torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0, 1, 2]))
    assert found.take(found.scores > 0.3).labels.tolist() == [0, 1]
    assert len(found.to("cpu")) == 3
    with pytest.raises(ValueError, match=r"scores must be \(3,\)"):
        Detections(boxes, torch.rand(2), torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="labels must be"):
        Detections(boxes, torch.rand(3), torch.rand(3))


def test_samples_are_checked():
    sample = Sample("token", torch.rand(7, 5), POSE)
    assert torch.equal(sample.augmentation, POSE)
    with pytest.raises(ValueError, match=r"lidar_to_global must be \(4, 4\) float64"):
        Sample("token", torch.rand(7, 5), POSE[:3])


def test_cameras_are_checked():
    cameras = some_cameras()
    with pytest.raises(ValueError, match=r"intrinsics must be \(2, 3, 3\)"):
        Cameras(cameras.names, cameras.images, cameras.lidar_to_camera, cameras.intrinsics[:1])
    with pytest.raises(ValueError, match=r"images must be \(1, 3, H, W\)"):
        Cameras(("A",), cameras.images, cameras.lidar_to_camera[:1], cameras.intrinsics[:1])
