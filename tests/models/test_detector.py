"""Points to boxes: frames without points, learning, one frame among others."""

import pytest
import torch

from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import PillarEncoder
from perception3d.models.heads import BevGrid, CenterDecoder, CenterHead, CenterLayers, CenterLoss
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer
from perception3d.structures import Batch, Boxes3D, Targets

RANGE = (-8.0, -8.0, -3.0, 8.0, 8.0, 3.0)
VOXEL = (0.5, 0.5, 6.0)
FAR = 50.0  # m, out of range


def build() -> Detector:
    torch.manual_seed(0)
    return Detector(
        Voxelizer(VOXEL, RANGE),
        PillarEncoder(VOXEL, RANGE, 4, (16, 16)),
        DSVT((32, 32, 1), [DSVTStage((8, 8, 1), 12, blocks=2)], 16, heads=4),
        BevBackbone(16, (0, 1), (2, 2), (16, 16), (1, 2), (16, 16)),
        CenterHead(
            32,
            ("car", "cone"),
            BevGrid(VOXEL, RANGE, stride=2),
            [["car"], ["cone"]],
            layers=CenterLayers(iou=True, shared_channels=16),
            loss=CenterLoss(diou=True),
            decoder=CenterDecoder(iou_rectifier=0.5),
        ),
    )


def batch(frames: list, boxes: list | None = None) -> Batch:
    """Return a batch of frames given as points (P, 4)."""
    count = len(frames)
    pose = torch.eye(4, dtype=torch.float64).expand(count, 4, 4)
    numbers = [torch.full((len(part),), i, dtype=torch.int32) for i, part in enumerate(frames)]
    targets = None
    if boxes is not None:
        targets = tuple(
            Targets(
                Boxes3D(torch.tensor(rows).view(-1, 9)),
                torch.zeros(len(rows), dtype=torch.int64),
                torch.ones(len(rows), dtype=torch.int64),
            )
            for rows in boxes
        )
    tokens = tuple(str(number) for number in range(count))
    return Batch(tokens, torch.cat(frames), torch.cat(numbers), pose, pose, targets)


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 4, generator=generator) - 0.5) * torch.tensor([16.0, 16, 4, 1])


NOTHING = torch.zeros(0, 4)
CAR = [1.3, 2.1, -0.5, 4.0, 2.0, 1.5, 0.4, 1.0, float("nan")]


@pytest.mark.parametrize(
    "frames",
    [
        [NOTHING],
        [NOTHING, NOTHING],
        [torch.full((5, 4), FAR)],
        [cloud(1)],
        [cloud(40), NOTHING, torch.full((3, 4), FAR)],
        [torch.full((3, 4), FAR), cloud(40)],
    ],
)
def test_frames_without_points_train_finitely_and_show_nothing(frames):
    detector = build()
    given = batch(frames, [[CAR]] + [[]] * (len(frames) - 1))
    losses = detector.train().loss(given)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for name, buffer in detector.named_buffers():
        assert buffer.isfinite().all(), name
    found = detector.eval().predict(given)
    assert len(found) == len(frames)
    for points, detections in zip(frames, found, strict=True):
        inside = bool(len(points)) and bool((points[:, :3].abs() < 8).all())
        assert (len(detections) > 0) == inside


def test_a_frame_alone_and_in_a_batch_give_the_same():
    detector = build().eval()
    with torch.no_grad():
        alone = detector.predict(batch([cloud(80, 1)]))[0]
        among = detector.predict(batch([cloud(60, 2), cloud(80, 1), NOTHING]))[1]
    assert len(alone) == len(among) > 0
    assert torch.equal(alone.labels, among.labels)
    assert torch.allclose(alone.scores, among.scores, atol=1e-5)
    known = [0, 1, 2, 3, 4, 5, 7, 8]
    difference = alone.boxes.tensor[:, known] - among.boxes.tensor[:, known]
    assert difference.abs().max() < 1e-3


def test_training_lowers_the_loss_until_the_box_is_found():
    detector = build().train()
    points = torch.cat([cloud(150), torch.tensor(CAR[:3] + [1.0]) + 0.3 * cloud(150, 3)])
    given = batch([points, cloud(80, 4)], [[CAR], []])
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        total = sum(detector.loss(given).values())
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.2 * totals[0]
    with torch.no_grad():
        best = detector.predict(given)[0]
    top = best.scores.argmax()
    assert best.labels[top] == 0
    assert (best.boxes.tensor[top, :3] - torch.tensor(CAR[:3])).norm() < 0.5


def test_a_loss_needs_targets():
    with pytest.raises(ValueError, match="needs targets"):
        build().loss(batch([cloud(5)]))
