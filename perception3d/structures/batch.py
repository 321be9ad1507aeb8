"""What the data side hands to the network: one Sample per frame, one Batch per step."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.structures.boxes import Boxes3D


@dataclass(frozen=True)
class Cameras:
    """Images of one frame and how they see the LiDAR frame.

    Attributes:
        names: camera names, e.g. "CAM_FRONT".
        images: (V, 3, H, W) uint8 RGB.
        lidar_to_camera: (V, 4, 4) float32; camera axes x right, y down, z forward; contains the ego
            motion between LiDAR and camera time.
        intrinsics: (V, 3, 3) float32, pixels of `images`.
    """

    names: tuple[str, ...]
    images: Tensor
    lidar_to_camera: Tensor
    intrinsics: Tensor

    def __post_init__(self) -> None:
        views = len(self.names)
        check_tensor(
            "Cameras", "images", self.images, (views, 3, "H", "W"), (torch.uint8, torch.float32)
        )
        check_tensor(
            "Cameras", "lidar_to_camera", self.lidar_to_camera, (views, 4, 4), (torch.float32,)
        )
        check_tensor("Cameras", "intrinsics", self.intrinsics, (views, 3, 3), (torch.float32,))

    def to(self, device: torch.device | str) -> "Cameras":
        """Move to a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            lidar_to_camera=self.lidar_to_camera.to(device, non_blocking=True),
            intrinsics=self.intrinsics.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Targets:
    """Annotated boxes of one frame.

    Attributes:
        boxes: K boxes in the LiDAR frame.
        labels: (K,) int64, index into the data set's class list, 0-based.
        num_points: (K,) int64, LiDAR points inside each box at the key frame.
    """

    boxes: Boxes3D
    labels: Tensor
    num_points: Tensor

    def __post_init__(self) -> None:
        count = len(self.boxes)
        check_tensor("Targets", "labels", self.labels, (count,), (torch.int64,))
        check_tensor("Targets", "num_points", self.num_points, (count,), (torch.int64,))

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: Tensor) -> "Targets":
        """Return the targets of the given rows or row mask."""
        return Targets(self.boxes[rows], self.labels[rows], self.num_points[rows])

    def with_boxes(self, boxes: Boxes3D) -> "Targets":
        """Return the same targets at other boxes."""
        return replace(self, boxes=boxes)

    def to(self, device: torch.device | str) -> "Targets":
        """Move to a device."""
        return Targets(
            self.boxes.to(device),
            self.labels.to(device, non_blocking=True),
            self.num_points.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Sample:
    """One frame, before batching.

    Attributes:
        token: name of the frame in its data set.
        points: (P, F) float32 [x, y, z in m, intensity, further columns], LiDAR frame; nuScenes:
            F = 5, intensity 0..255, time lag in s (0 at the key frame, positive in the past).
        lidar_to_global: (4, 4) float64 pose of the LiDAR at the key frame, before augmentation.
        targets: annotations, None where there are none (test split, demo).
        cameras: images, None where they are not loaded.
        augmentation: (4, 4) float64, maps original LiDAR coordinates to those of `points`.
    """

    token: str
    points: Tensor
    lidar_to_global: Tensor
    targets: Targets | None = None
    cameras: Cameras | None = None
    augmentation: Tensor = field(default_factory=lambda: torch.eye(4, dtype=torch.float64))

    def __post_init__(self) -> None:
        check_tensor("Sample", "points", self.points, ("P", "F"), (torch.float32,))
        check_tensor("Sample", "lidar_to_global", self.lidar_to_global, (4, 4), (torch.float64,))
        check_tensor("Sample", "augmentation", self.augmentation, (4, 4), (torch.float64,))


@dataclass(frozen=True)
class Batch:
    """Frames of one step.

    Attributes:
        tokens: names of the frames.
        points: (P, F) float32, points of all frames, one frame after the other.
        frame_of_point: (P,) int32, frame number of each point, ascending.
        lidar_to_global: (B, 4, 4) float64.
        augmentation: (B, 4, 4) float64.
        targets: one per frame, or None if any frame has none.
        cameras: one per frame, or None if any frame has none.
    """

    tokens: tuple[str, ...]
    points: Tensor
    frame_of_point: Tensor
    lidar_to_global: Tensor
    augmentation: Tensor
    targets: tuple[Targets, ...] | None = None
    cameras: tuple[Cameras, ...] | None = None

    def __post_init__(self) -> None:
        size = len(self.tokens)
        check_tensor("Batch", "points", self.points, ("P", "F"), (torch.float32,))
        check_tensor(
            "Batch", "frame_of_point", self.frame_of_point, (self.points.shape[0],), (torch.int32,)
        )
        check_tensor(
            "Batch", "lidar_to_global", self.lidar_to_global, (size, 4, 4), (torch.float64,)
        )
        check_tensor("Batch", "augmentation", self.augmentation, (size, 4, 4), (torch.float64,))
        for name, parts in (("targets", self.targets), ("cameras", self.cameras)):
            if parts is not None and len(parts) != size:
                raise ValueError(
                    f"Batch: {name} must have one entry per frame ({size}), got {len(parts)}"
                )

    @property
    def batch_size(self) -> int:
        """Number of frames."""
        return len(self.tokens)

    def to(self, device: torch.device | str) -> "Batch":
        """Move to a device."""
        return replace(
            self,
            points=self.points.to(device, non_blocking=True),
            frame_of_point=self.frame_of_point.to(device, non_blocking=True),
            targets=None if self.targets is None else tuple(t.to(device) for t in self.targets),
            cameras=None if self.cameras is None else tuple(c.to(device) for c in self.cameras),
        )

    def pin_memory(self) -> "Batch":
        """Pin the points, so that their copy to the GPU overlaps with compute."""
        return replace(
            self, points=self.points.pin_memory(), frame_of_point=self.frame_of_point.pin_memory()
        )
