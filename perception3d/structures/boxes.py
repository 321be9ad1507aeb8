"""3D boxes.  Frames, axes and units are stated here, once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.checks import FLOATS, check_tensor

BOX_COLUMNS = ("x", "y", "z", "dx", "dy", "dz", "yaw", "vx", "vy")


@dataclass(frozen=True)
class Boxes3D:
    """Boxes in one frame (the LiDAR frame unless said otherwise).

    Columns [x, y, z, dx, dy, dz, yaw, vx, vy]: centre (centroid, not bottom) in m; length along
    the heading, width to its left, height in m; yaw about +z in rad, 0 along +x, counter-clockwise
    positive, any interval; velocity in m/s, NaN where unknown.
    nuScenes LiDAR frame: x right, y forward, z up.  KITTI and Waymo: x forward, y left, z up.

    Attributes:
        tensor: (K, 9) float.
    """

    tensor: Tensor

    def __post_init__(self) -> None:
        check_tensor("Boxes3D", "tensor", self.tensor, ("K", len(BOX_COLUMNS)), FLOATS)

    @staticmethod
    def empty(device: torch.device | str = "cpu") -> "Boxes3D":
        """Return no boxes."""
        return Boxes3D(torch.zeros((0, len(BOX_COLUMNS)), device=device))

    @staticmethod
    def cat(parts: list["Boxes3D"]) -> "Boxes3D":
        """Join several groups of boxes, in order."""
        return Boxes3D(torch.cat([part.tensor for part in parts])) if parts else Boxes3D.empty()

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> "Boxes3D":
        return Boxes3D(self.tensor[rows])

    @property
    def centers(self) -> Tensor:
        """(K, 3) centroids, m."""
        return self.tensor[:, 0:3]

    @property
    def sizes(self) -> Tensor:
        """(K, 3) length, width, height, m."""
        return self.tensor[:, 3:6]

    @property
    def yaws(self) -> Tensor:
        """(K,) headings, rad."""
        return self.tensor[:, 6]

    @property
    def velocities(self) -> Tensor:
        """(K, 2) vx, vy, m/s; NaN where unknown."""
        return self.tensor[:, 7:9]

    def to(self, device: torch.device | str) -> "Boxes3D":
        """Move to a device."""
        return Boxes3D(self.tensor.to(device, non_blocking=True))

    def corners(self) -> Tensor:
        """Return corners (K, 8, 3), m: bottom counter-clockwise from front left, then top."""
        offsets = self.tensor.new_tensor(
            [
                [1, 1, -1],
                [-1, 1, -1],
                [-1, -1, -1],
                [1, -1, -1],
                [1, 1, 1],
                [-1, 1, 1],
                [-1, -1, 1],
                [1, -1, 1],
            ]
        )
        local = 0.5 * offsets[None] * self.sizes[:, None]
        cos, sin = self.yaws.cos()[:, None], self.yaws.sin()[:, None]
        x = local[..., 0] * cos - local[..., 1] * sin
        y = local[..., 0] * sin + local[..., 1] * cos
        return torch.stack([x, y, local[..., 2]], dim=-1) + self.centers[:, None]

    def flipped(self, axis: str) -> "Boxes3D":
        """Mirror the scene: axis "x" negates y (mirror at the x axis), axis "y" negates x."""
        box = self.tensor.clone()
        if axis == "x":
            box[:, 1], box[:, 6], box[:, 8] = -box[:, 1], -box[:, 6], -box[:, 8]
        elif axis == "y":
            box[:, 0], box[:, 6], box[:, 7] = -box[:, 0], -(box[:, 6] + math.pi), -box[:, 7]
        else:
            raise ValueError(f"Boxes3D.flipped: axis must be 'x' or 'y', got {axis!r}")
        return Boxes3D(box)

    def rotated(self, angle: float) -> "Boxes3D":
        """Turn the scene about +z by `angle` rad; centres, headings and velocities turn with it."""
        box = self.tensor.clone()
        turn = box.new_tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        )
        box[:, 0:2] = box[:, 0:2] @ turn
        box[:, 6] += angle
        box[:, 7:9] = box[:, 7:9] @ turn
        return Boxes3D(box)

    def scaled(self, factor: float) -> "Boxes3D":
        """Scale the scene about the origin; velocities scale too."""
        box = self.tensor.clone()
        box[:, 0:6] *= factor
        box[:, 7:9] *= factor
        return Boxes3D(box)

    def translated(self, offset_xyz: tuple[float, float, float]) -> "Boxes3D":
        """Shift the scene by an offset in m."""
        box = self.tensor.clone()
        box[:, 0:3] += box.new_tensor(offset_xyz)
        return Boxes3D(box)
