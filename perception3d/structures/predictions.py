"""What the network gives back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.checks import FLOATS, check_tensor
from perception3d.structures.boxes import Boxes3D


@dataclass(frozen=True)
class Detections:
    """Boxes found in one frame, in the LiDAR frame, by descending score within a head.

    Attributes:
        boxes: K boxes.
        scores: (K,) float in [0, 1].
        labels: (K,) int64, index into the model's class list, 0-based.
    """

    boxes: Boxes3D
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count = len(self.boxes)
        check_tensor("Detections", "scores", self.scores, (count,), FLOATS)
        check_tensor("Detections", "labels", self.labels, (count,), (torch.int64,))

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: Tensor) -> "Detections":
        """Return the detections of the given rows or row mask."""
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows])

    def to(self, device: torch.device | str) -> "Detections":
        """Move to a device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
