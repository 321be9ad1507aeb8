"""Augmentations that move the whole scene: points, boxes and the record of it move together."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from perception3d.structures import Boxes3D, Sample
from perception3d.transforms.pipeline import Transform


def move_scene(sample: Sample, motion: Tensor, move: Callable[[Boxes3D], Boxes3D]) -> Sample:
    """Move points by a matrix and boxes by the function that does the same to boxes.

    Args:
        sample: any frame.
        motion: (4, 4) float64, applied after the augmentation so far.
        move: the same motion of boxes.
    """
    points = sample.points.clone()
    step = motion.to(points.dtype)
    points[:, :3] = points[:, :3] @ step[:3, :3].T + step[:3, 3]
    targets = sample.targets
    return replace(
        sample,
        points=points,
        augmentation=motion @ sample.augmentation,
        targets=None if targets is None else targets.with_boxes(move(targets.boxes)),
    )


def _diagonal(x: float, y: float, z: float) -> Tensor:
    return torch.diag(torch.tensor([x, y, z, 1.0], dtype=torch.float64))


class RandomFlip(Transform):
    """Mirror the scene at the x axis, at the y axis, at both or not at all.

    Args:
        axes: "x" negates y, "y" negates x; each is decided on its own.
        probability: of each.
    """

    def __init__(self, axes: tuple[str, ...] = ("x", "y"), probability: float = 0.5) -> None:
        if not set(axes) <= {"x", "y"}:
            raise ValueError(f"RandomFlip: axes must be out of 'x' and 'y', got {axes}")
        if not 0 <= probability <= 1:
            raise ValueError(f"RandomFlip: probability must lie in [0, 1], got {probability}")
        self.axes = tuple(axes)
        self.probability = probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the mirrored scene."""
        for axis in self.axes:
            if rng.random() < self.probability:
                mirror = _diagonal(1, -1, 1) if axis == "x" else _diagonal(-1, 1, 1)
                sample = move_scene(sample, mirror, partial(Boxes3D.flipped, axis=axis))
        return sample


class RandomRotate(Transform):
    """Turn the scene about the z axis.

    Args:
        angles: lower and upper bound in rad, uniform.
    """

    def __init__(self, angles: tuple[float, float] = (-math.pi / 4, math.pi / 4)) -> None:
        _check_bounds("RandomRotate: angles", angles)
        self.angles = angles

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the turned scene."""
        angle = float(rng.uniform(*self.angles))
        turn = torch.eye(4, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = math.cos(angle)
        turn[0, 1], turn[1, 0] = -math.sin(angle), math.sin(angle)
        return move_scene(sample, turn, lambda boxes: boxes.rotated(angle))


class RandomScale(Transform):
    """Scale the scene about the origin; velocities scale too.

    Args:
        factors: lower and upper bound, uniform.
    """

    def __init__(self, factors: tuple[float, float] = (0.9, 1.1)) -> None:
        _check_bounds("RandomScale: factors", factors)
        if factors[0] <= 0:
            raise ValueError(f"RandomScale: factors must be positive, got {factors}")
        self.factors = factors

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the scaled scene."""
        factor = float(rng.uniform(*self.factors))
        return move_scene(
            sample, _diagonal(factor, factor, factor), lambda boxes: boxes.scaled(factor)
        )


class RandomTranslate(Transform):
    """Shift the scene.

    Args:
        std: standard deviation along x, y, z in m, normal.
    """

    def __init__(self, std: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> None:
        if len(std) != 3 or min(std) < 0:
            raise ValueError(f"RandomTranslate: std must be three numbers >= 0, got {std}")
        self.std = std

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the shifted scene."""
        x, y, z = (float(value) for value in rng.normal(0.0, self.std))
        shift = torch.eye(4, dtype=torch.float64)
        shift[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
        return move_scene(sample, shift, lambda boxes: boxes.translated((x, y, z)))


def _check_bounds(name: str, bounds: tuple[float, float]) -> None:
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be (lower, upper), got {bounds}")
