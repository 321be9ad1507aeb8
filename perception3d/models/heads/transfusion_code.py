"""Boxes and the codes that a TransFusionHead predicts for them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_code import LOG_SIZE_LIMIT

HEIGHTS = ("center", "top")


@dataclass(frozen=True)
class QueryCode:
    """Box code [x, y in cells of the map, height, log dx, log dy, log dz, sin, cos, vx, vy].

    Attributes:
        grid: map of the head.
        height: what the third entry is: z of the box's "center" or of its "top" (DSVT), m.

    Raises:
        ValueError: unknown height.
    """

    grid: BevGrid
    height: str = "center"

    def __post_init__(self) -> None:
        if self.height not in HEIGHTS:
            raise ValueError(f"QueryCode: height must be one of {HEIGHTS}, got {self.height!r}")

    def encode(self, boxes: Tensor) -> Tensor:
        """Turn boxes (..., 9) of positive sizes into codes (..., 10)."""
        height, yaw = boxes[..., 2:3], boxes[..., 6:7]
        if self.height == "top":
            height = height + boxes[..., 5:6] / 2
        place = self.grid.to_cells(boxes[..., :2])
        parts = [place, height, boxes[..., 3:6].log(), yaw.sin(), yaw.cos(), boxes[..., 7:9]]
        return torch.cat(parts, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes (..., 10) into boxes (..., 9), sizes e^-5 .. e^5 m; differentiable."""
        sizes = codes[..., 3:6].clamp(-LOG_SIZE_LIMIT, LOG_SIZE_LIMIT).exp()
        height = codes[..., 2:3]
        if self.height == "top":
            height = height - sizes[..., 2:3] / 2
        yaw = torch.atan2(codes[..., 6:7], codes[..., 7:8])
        place = self.grid.to_metres(codes[..., :2])
        return torch.cat([place, height, sizes, yaw, codes[..., 8:]], dim=-1)
