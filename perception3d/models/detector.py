"""Detector: points to boxes."""

from typing import Any

import torch
from torch import Tensor, nn

from perception3d.structures import Batch, Detections, SparseVoxels


class Detector(nn.Module):
    """A LiDAR detector, from top to bottom.

    Args:
        voxelizer: Batch -> PointVoxels.
        encoder: (points, PointVoxels) -> SparseVoxels.
        backbone: SparseVoxels -> SparseVoxels.
        neck: SparseVoxels -> BEV map (B, C, H, W).
        head: BEV map -> raw output; its `loss(output, targets)` gives named scalars and its
            `decode(output)` one Detections per frame.
    """

    head: Any  # an nn.Module; its loss and decode are unknown to torch's types

    def __init__(
        self,
        voxelizer: nn.Module,
        encoder: nn.Module,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.voxelizer = voxelizer
        self.encoder = encoder
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, batch: Batch) -> Any:  # noqa: ANN401  # each head has its own output
        """Return the raw output of the head."""
        return self.head(self.neck(self.extract(batch)))

    def extract(self, batch: Batch) -> SparseVoxels:
        """Return the voxels of a batch with the features of the backbone."""
        point_voxels = self.voxelizer(batch)
        voxels = self.encoder(batch.points, point_voxels)
        voxels = self.backbone(voxels)
        assert isinstance(voxels, SparseVoxels)
        return voxels

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return named losses, scalars whose sum is to be minimised.

        Finite for frames without boxes, without points, or without points in range.

        Raises:
            ValueError: the batch has no targets.
        """
        if batch.targets is None:
            raise ValueError("Detector: a loss needs targets, but the batch has none")
        losses: dict[str, Tensor] = self.head.loss(self(batch), batch.targets)
        return losses

    def predict(self, batch: Batch) -> list[Detections]:
        """Return the detections of every frame; none for a frame without points in range."""
        voxels = self.extract(batch)
        found: list[Detections] = self.head.decode(self.head(self.neck(voxels)))
        # A map of zeros would still give the boxes that the biases of the head think likely.
        seen = torch.zeros(batch.batch_size, dtype=torch.bool, device=voxels.coords.device)
        seen[voxels.coords[:, 0].long()] = True
        return [
            detections.take(visible.expand(len(detections)))
            for detections, visible in zip(found, seen, strict=True)
        ]
