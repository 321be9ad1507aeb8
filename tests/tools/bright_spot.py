"""A detector whose answer can be told beforehand: one box where the bright points are."""

import torch
from torch import Tensor, nn

from perception3d.models.encoders import VoxelEncoder
from perception3d.models.voxelizer import Voxelizer
from perception3d.structures import Batch, Boxes3D, Detections, Sample, Targets

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
SIZE = (4.0, 2.0, 1.6)


class BrightSpot(nn.Module):
    """A car (score 0.9) at the mean of the points brighter than `threshold`, heading 0.5 rad, and
    a pedestrian (score 0.2) 5 m above it whose velocity is unknown."""

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.classes = classes
        self.voxelizer = Voxelizer((0.3, 0.3, 8.0), RANGE)
        self.encoder = VoxelEncoder((0.3, 0.3, 8.0), RANGE, 5, (4,))
        self.threshold = nn.Parameter(torch.tensor(1e9))

    def forward(self, batch: Batch) -> Tensor:
        return batch.points

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss_none": self.threshold * 0.0}

    def predict(self, batch: Batch) -> list[Detections]:
        assert not self.training
        found = []
        for frame in range(batch.batch_size):
            points = batch.points[batch.frame_of_point == frame]
            # a column that is no time lag would show here
            bright = points[(points[:, 3] > self.threshold) & (points[:, 4] == 0)]
            center = bright[:, :3].double().mean(dim=0).float()
            rows = [[*center.tolist(), *SIZE, 0.5, 1.0, -2.0]] * (len(bright) > 0)
            rows += [
                [*(center + torch.tensor([0, 0, 5.0])).tolist(), *SIZE, 0.5] + [float("nan")] * 2
            ] * len(rows)
            boxes = torch.tensor(rows[::-1]).reshape(-1, 9)
            count = len(boxes)
            found.append(
                Detections(
                    Boxes3D(boxes),
                    torch.tensor([0.2, 0.9])[:count],
                    torch.tensor([1, 0])[:count],
                )
            )
        return found


class SpotDataset:
    """Frames with a spot at (index, 20, 0), annotated there unless told otherwise."""

    def __init__(
        self,
        size: int = 5,
        annotated: bool = True,
        classes: tuple[str, ...] = ("car", "pedestrian"),
    ) -> None:
        self.size = size
        self.annotated = annotated
        self.metainfo = {"classes": classes}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        points = torch.tensor([[float(index), 20.0, 0.0, 250.0, 0.0]]).repeat(30, 1)
        targets = Targets(
            Boxes3D(torch.tensor([[float(index), 20.0, 0.0, *SIZE, 0.5, 0.0, 0.0]])),
            torch.zeros(1, dtype=torch.int64),
            torch.full((1,), 30),
        )
        return Sample(
            f"spot/{index}",
            points,
            torch.eye(4, dtype=torch.float64),
            targets if self.annotated else None,
        )
