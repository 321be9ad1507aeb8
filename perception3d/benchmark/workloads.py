"""Point clouds to measure with: one real frame, and seeded synthetic ones."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WORKLOADS = ("tiny", "tail", "f1", "f10", "w180")
REPOSITORY = Path(__file__).resolve().parents[2]
SENSOR_HEIGHT = 1.84  # m; Waymo grids have their origin on the ground


class MissingData(Exception):
    """The real frame is not on this machine."""


@dataclass(frozen=True)
class Workload:
    """Points of one frame.

    Attributes:
        name: one of WORKLOADS.
        points: (P, 5) float32 [x, y, z in m, intensity, time lag in s], LiDAR frame.  Where they
            lie is where a row prepares its inputs and runs.
        synthetic: false only for the real frame as it was recorded.
    """

    name: str
    points: Tensor
    synthetic: bool

    @property
    def device(self) -> torch.device:
        """Device to measure on."""
        return self.points.device

    def to(self, device: torch.device | str) -> "Workload":
        """Return the workload on another device."""
        return replace(self, points=self.points.to(device))

    def raised(self) -> Tensor:
        """Return the points with the origin on the ground, as Waymo grids expect."""
        return self.points + self.points.new_tensor([0.0, 0.0, SENSOR_HEIGHT, 0.0, 0.0])


def make_workload(name: str) -> Workload:
    """Load or generate a workload.

    tiny: 500 voxels; tail: one window of 2,000 voxels and 500 windows of one (DSVT-V Waymo grid);
    f1: the real nuScenes frame under P3D_DATA; f10: ten noisy copies of f1 along a drive;
    w180: a 64-beam ring model with 180,000 points.

    Raises:
        MissingData: f1 or f10 without the real frame.
        ValueError: an unknown name.
    """
    if name == "f1":
        return Workload(name, _real_frame(), synthetic=False)
    makers = {"tiny": _tiny, "tail": _tail, "f10": _ten_sweeps, "w180": _rings}
    if name not in makers:
        raise ValueError(f"make_workload: name must be one of {WORKLOADS}, got {name!r}")
    return Workload(name, makers[name](), synthetic=True)


def real_boxes() -> Tensor:
    """Load the 69 annotated boxes of the real frame: (69, 7) float32, LiDAR frame.

    Raises:
        MissingData: without the real frame.
    """
    path = _frame_folder() / "boxes_lidar.npz"
    if not path.is_file():
        raise MissingData(f"no boxes of the nuScenes frame in {path.parent}")
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["boxes_lidar"][:, :7].astype(np.float32))


def _frame_folder() -> Path:
    root = Path(os.environ.get("P3D_DATA", REPOSITORY.parent / "shared" / "data"))
    return root / "nuscenes_frame"


def _real_frame() -> Tensor:
    files = sorted((_frame_folder() / "samples" / "LIDAR_TOP").glob("*.bin"))
    if not files:
        raise MissingData(f"no nuScenes frame in {_frame_folder()} (set P3D_DATA)")
    points = np.fromfile(files[0], dtype=np.float32).reshape(-1, 5)
    points[:, 4] = 0.0  # the file holds the ring number where sweeps hold the time lag
    return torch.from_numpy(points)


def _ten_sweeps() -> Tensor:
    """Copies of the real frame, 0.35 m and 0.15 degrees apart, 2 cm noise, ego returns removed."""
    frame = _real_frame()
    frame = frame[(frame[:, 0].abs() >= 1.0) | (frame[:, 1].abs() >= 1.0)]
    generator = torch.Generator().manual_seed(10)
    sweeps = [frame]
    for sweep in range(1, 10):
        angle = math.radians(0.15 * sweep)
        turn = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        )
        copy = frame.clone()
        copy[:, :2] = copy[:, :2] @ turn
        copy[:, 1] -= 0.35 * sweep  # nuScenes: y points forward
        copy[:, :3] += 0.02 * torch.randn(copy.shape[0], 3, generator=generator)
        copy[:, 4] = 0.05 * sweep
        sweeps.append(copy)
    return torch.cat(sweeps)


def _tiny() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randperm(60 * 60, generator=generator)[:500].repeat(4)
    centers = torch.stack([cells // 60 * 0.32 - 9.44, cells % 60 * 0.32 - 9.44], dim=1)
    return _with_columns(torch.cat([centers, torch.zeros(2000, 1)], dim=1), generator)


def _tail() -> Tensor:
    """Voxel centres of the grid 468 x 468 x 32 with windows of 12 x 12 x 32 cells."""
    generator = torch.Generator().manual_seed(2)
    crowd = torch.randperm(12 * 12 * 32, generator=generator)[:2000]
    crowd_cells = torch.stack([crowd // 384, crowd // 32 % 12, crowd % 32], dim=1)
    windows = 1 + torch.randperm(39 * 39 - 1, generator=generator)[:500]
    lone_cells = torch.stack([windows // 39 * 12, windows % 39 * 12, windows % 32], dim=1)
    cells = torch.cat([crowd_cells, lone_cells]).float() + 0.5
    xyz = cells * torch.tensor([0.32, 0.32, 0.1875]) - torch.tensor([74.88, 74.88, 2.0])
    xyz[:, 2] -= SENSOR_HEIGHT
    return _with_columns(xyz, generator)


def _rings() -> Tensor:
    """64 beams from -17.6 to 2.4 degrees at 2,650 azimuths: ground, four walls, 60 objects."""
    generator = torch.Generator().manual_seed(180)
    elevation = torch.deg2rad(torch.linspace(-17.6, 2.4, 64))
    azimuth = torch.arange(2650) * (2 * math.pi / 2650)
    down = torch.tan(elevation)[None, :]
    cos, sin = azimuth.cos()[:, None], azimuth.sin()[:, None]
    ground = torch.where(down < 0, SENSOR_HEIGHT / -down.clamp(max=-1e-6), torch.inf)
    wall = torch.minimum(45.0 / cos.abs().clamp(min=1e-6), 25.0 / sin.abs().clamp(min=1e-6))
    reach = torch.minimum(ground, wall)

    place = torch.rand(60, 2, generator=generator) * torch.tensor([80.0, 44.0])
    for x, y in (place - torch.tensor([40.0, 22.0])).tolist():
        width, height = (torch.rand(2, generator=generator) * torch.tensor([2.0, 2.0])).tolist()
        along = x * cos + y * sin
        aside = (x * sin - y * cos).abs()
        hit = (along > 3.0) & (aside < 0.5 + width / 2)
        hit = hit & (along * down + SENSOR_HEIGHT < 1.0 + height) & (along < reach)
        reach = torch.where(hit, along, reach)
    xyz = torch.stack([reach * cos, reach * sin, reach * down], dim=2).reshape(-1, 3)
    xyz = xyz[(torch.rand(xyz.shape[0], generator=generator) > 0.05) & (xyz.norm(dim=1) < 75.0)]
    near = torch.randn(max(0, 180_000 - xyz.shape[0]), 3, generator=generator)
    near = near * torch.tensor([6.0, 6.0, 0.02]) - torch.tensor([0.0, 0.0, SENSOR_HEIGHT])
    xyz = torch.cat([xyz, near])
    return _with_columns(xyz + 0.01 * torch.randn(xyz.shape, generator=generator), generator)


def _with_columns(xyz: Tensor, generator: torch.Generator) -> Tensor:
    """Append intensity and a zero time lag."""
    intensity = 255.0 * torch.rand(xyz.shape[0], 1, generator=generator)
    return torch.cat([xyz, intensity, torch.zeros(xyz.shape[0], 1)], dim=1)
