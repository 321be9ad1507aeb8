"""How large the sparse parts of a network get on given points: voxels, windows, sets, sequences.

Buffers, deployment profiles and the shapes of a benchmark follow from these figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perception3d.ops import set_partition, voxel_grid_size, voxelize, window_partition

Cells = tuple[int, int, int]
Figures = dict[str, float]


@dataclass(frozen=True)
class Downsample:
    """A step to coarser cells: those that a sparse convolution (kernel, padding) reaches.

    A pooling has kernel = stride and no padding; cells beyond the grid's end are padded.

    Attributes:
        stride: cells per coarse cell, order x, y, z.
        kernel: cells that a coarse cell sees, order x, y, z; None: as the stride.
        padding: cells added on either side, order x, y, z.
    """

    stride: Cells
    kernel: Cells | None = None
    padding: Cells = (0, 0, 0)

    def grid(self, cells: Cells) -> Cells:
        """Return the coarse grid size."""
        if self.kernel is None:
            x, y, z = (
                math.ceil(size / step) for size, step in zip(cells, self.stride, strict=True)
            )
        else:
            x, y, z = (
                (size + 2 * pad - reach) // step + 1
                for size, step, reach, pad in zip(
                    cells, self.stride, self.kernel, self.padding, strict=True
                )
            )
        return (x, y, z)

    def apply(self, cells: Tensor, grid: Cells) -> Tensor:
        """Return the coarse cells (M, 3) that any of the cells (N, 3) reaches, each once."""
        coarse_grid = torch.tensor(self.grid(grid))
        stride, padding = torch.tensor(self.stride), torch.tensor(self.padding)
        kernel = self.kernel or self.stride
        reached = []
        for tap in torch.cartesian_prod(*(torch.arange(reach) for reach in kernel)):
            place = cells + padding - tap
            coarse = torch.div(place, stride, rounding_mode="floor")
            hits = (place % stride == 0) & (coarse >= 0) & (coarse < coarse_grid)
            reached.append(coarse[hits.all(dim=1)])
        coarse = torch.cat(reached)
        _, ny, nz = coarse_grid.tolist()
        keys = torch.unique((coarse[:, 0] * ny + coarse[:, 1]) * nz + coarse[:, 2])
        return torch.stack([keys // (ny * nz), keys // nz % ny, keys % nz], dim=1)


@dataclass(frozen=True)
class Partition:
    """A cut into windows, and of these into sets.

    Attributes:
        window: cells of a window, order x, y, z.
        shift: cells added before the division, order x, y, z.
        set_size: slots of a set; None: no sets.
    """

    window: Cells
    shift: Cells = (0, 0, 0)
    set_size: int | None = None


@dataclass(frozen=True)
class Stage:
    """Voxels of one resolution.

    Attributes:
        name: in the table.
        before: steps from the previous stage's voxels to these.
        partitions: what is cut.
        aside: the next stage starts from the same voxels as this one.
    """

    name: str
    before: tuple[Downsample, ...] = ()
    partitions: tuple[Partition, ...] = ()
    aside: bool = False


@dataclass(frozen=True)
class GridSettings:
    """A network's grid and stages.

    Attributes:
        name: in the table.
        voxel_size: m, order x, y, z.
        point_cloud_range: m, x, y, z minimum, then maximum.
        stages: from fine to coarse; the first one has the voxels themselves.
        extra_z: cells that the grid has in z beyond the range; sparse convolutions often add one.
        raised: metres added to z: 1.84 puts nuScenes points on the ground of Waymo grids.
    """

    name: str
    voxel_size: tuple[float, float, float]
    point_cloud_range: tuple[float, ...]
    stages: tuple[Stage, ...] = field(default=(Stage("voxels"),))
    extra_z: int = 0
    raised: float = 0.0


def measure_shapes(points: Tensor, settings: GridSettings) -> dict[str, Figures]:
    """Count what a frame becomes.

    Args:
        points: (P, >=3) float32, x, y, z in m.
        settings: grid and stages.

    Returns:
        Figures by stage name: "points" in range (first stage), "voxels", and per partition
        number i "windows i", "voxels per window i mean" / "median" / "90 %" / "max", "sets i",
        "slots filled i" (share).  The sequence of a scan over a stage has one token per voxel.
    """
    xyz = points[:, :3].contiguous().float()
    xyz[:, 2] += settings.raised
    frame = torch.zeros(len(xyz), dtype=torch.int32)
    voxel_of_point, coords, _, _ = voxelize(
        xyz, frame, 1, settings.voxel_size, settings.point_cloud_range
    )
    x, y, z = voxel_grid_size(settings.voxel_size, settings.point_cloud_range)
    grid = (x, y, z + settings.extra_z)
    main = coords[:, [3, 2, 1]].long(), grid
    result: dict[str, Figures] = {}
    for number, stage in enumerate(settings.stages):
        cells, grid = main
        for step in stage.before:
            cells, grid = step.apply(cells, grid), step.grid(grid)
        if not stage.aside:
            main = cells, grid
        figures: Figures = {} if number else {"points": float((voxel_of_point >= 0).sum())}
        figures["voxels"] = float(cells.shape[0])
        for place, partition in enumerate(stage.partitions):
            figures |= _partition_figures(cells, grid, partition, f" {place}")
        result[stage.name] = figures
    return result


def _partition_figures(cells: Tensor, grid: Cells, partition: Partition, number: str) -> Figures:
    coords = torch.zeros(cells.shape[0], 4, dtype=torch.int32)
    coords[:, 1:] = cells[:, [2, 1, 0]]
    window, shift = partition.window[::-1], partition.shift[::-1]
    _, order, offsets, in_window = window_partition(coords, 1, grid[::-1], window, shift)
    counts = offsets.diff().double()
    figures = {f"windows{number}": float(counts.numel())}
    if counts.numel():
        figures |= {
            f"voxels per window{number} mean": float(counts.mean()),
            f"voxels per window{number} median": float(counts.quantile(0.5)),
            f"voxels per window{number} 90 %": float(counts.quantile(0.9)),
            f"voxels per window{number} max": float(counts.max()),
        }
    if partition.set_size is not None:
        _, repeated, *_ = set_partition(in_window, order, offsets, partition.set_size)
        sets = repeated.shape[1]
        figures[f"sets{number}"] = float(sets)
        if sets:
            figures[f"slots filled{number}"] = cells.shape[0] / (sets * partition.set_size)
    return figures


def summarise(frames: Sequence[dict[str, Figures]]) -> dict[str, dict[str, Figures]]:
    """Return mean, smallest and largest value over frames, by stage and figure."""
    result: dict[str, dict[str, Figures]] = {}
    for stage in frames[0]:
        names = dict.fromkeys(name for frame in frames for name in frame[stage])
        result[stage] = {}
        for name in names:
            values = [frame[stage][name] for frame in frames if name in frame[stage]]
            result[stage][name] = {
                "mean": sum(values) / len(values),
                "min": min(values),
                "max": max(values),
            }
    return result
