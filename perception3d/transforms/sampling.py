"""Transforms that choose or reorder points and boxes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from perception3d.structures import Sample
from perception3d.transforms.pipeline import Transform


class FilterRange(Transform):
    """Keep the points in a range, and the boxes whose centre lies in it; bounds are inside.

    Args:
        point_cloud_range: x, y, z lower, then x, y, z upper bounds, m.
        check_z: False: the z of points is not looked at (pillar encoders take any height); that of
            boxes always is.
    """

    def __init__(self, point_cloud_range: Sequence[float], check_z: bool = True) -> None:
        limits = [float(value) for value in point_cloud_range]
        if len(limits) != 6 or any(
            low >= high for low, high in zip(limits[:3], limits[3:], strict=True)
        ):
            raise ValueError(
                "FilterRange: point_cloud_range must be x, y, z lower, then upper bounds, "
                f"got {point_cloud_range}"
            )
        self.point_cloud_range = tuple(limits)
        self.check_z = check_z

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return what lies in the range."""
        axes = 3 if self.check_z else 2
        sample = replace(sample, points=sample.points[self._inside(sample.points, axes)])
        if sample.targets is None:
            return sample
        inside = self._inside(sample.targets.boxes.centers, 3)
        return replace(sample, targets=sample.targets.take(inside))

    def _inside(self, positions: Tensor, axes: int) -> Tensor:
        limits = positions.new_tensor(self.point_cloud_range).view(2, 3)[:, :axes]
        positions = positions[:, :axes]
        return ((positions >= limits[0]) & (positions <= limits[1])).all(dim=1)


class FilterBoxes(Transform):
    """Keep the boxes that hold enough LiDAR points and whose class takes part.

    Args:
        min_points: LiDAR points inside the box at the key frame, at least.
        labels: labels to keep; None: all.
    """

    def __init__(self, min_points: int = 1, labels: Sequence[int] | None = None) -> None:
        self.min_points = min_points
        self.labels = None if labels is None else torch.tensor(list(labels), dtype=torch.int64)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with fewer boxes."""
        if sample.targets is None:
            return sample
        keep = sample.targets.num_points >= self.min_points
        if self.labels is not None:
            keep &= torch.isin(sample.targets.labels, self.labels)
        return replace(sample, targets=sample.targets.take(keep))


class ShufflePoints(Transform):
    """Put the points into random order (hard voxelisation keeps the first ones of a voxel)."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the same points in another order."""
        order = torch.from_numpy(rng.permutation(sample.points.shape[0]))
        return replace(sample, points=sample.points[order])
