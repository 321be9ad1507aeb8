"""The protocol of transforms, and a list of them applied in order.

Every random draw comes from the generator that the caller hands in; the data set makes it from
(seed, epoch, index), so a frame looks the same however many processes load it and whether or not
the run was interrupted before.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import TRANSFORMS

from perception3d.data.frame import Frame
from perception3d.structures import Sample


class Loader(ABC):
    """Adds what an info file points to: called as loader(sample, frame, rng)."""

    @abstractmethod
    def __call__(self, sample: Sample, frame: Frame, rng: np.random.Generator) -> Sample:
        """Return the sample with one more part."""


class Transform(ABC):
    """Changes a sample: called as transform(sample, rng)."""

    @abstractmethod
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return another sample; the given one stays as it is."""


class Pipeline:
    """Loaders and transforms in order.

    Args:
        steps: objects, or dict(type=Class, ...) as configs write them.

    Raises:
        TypeError: a step that is neither Loader nor Transform.
    """

    def __init__(self, steps: Sequence[Loader | Transform | Mapping[str, Any]]) -> None:
        self.transforms: list[Loader | Transform] = []
        for step in steps:
            built = TRANSFORMS.build(dict(step)) if isinstance(step, Mapping) else step
            if not isinstance(built, Loader | Transform):
                raise TypeError(
                    f"Pipeline: a step must be a Loader or a Transform, got {type(built).__name__}"
                )
            self.transforms.append(built)

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Sample:
        """Load a frame and transform it."""
        sample = Sample(
            token=frame.token,
            points=torch.zeros((0, 5)),
            lidar_to_global=torch.from_numpy(frame.lidar_to_global.copy()),
        )
        for step in self.transforms:
            sample = step(sample, frame, rng) if isinstance(step, Loader) else step(sample, rng)
        return sample

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Transform a sample that was loaded elsewhere; loaders are passed over."""
        for step in self.transforms:
            if isinstance(step, Transform):
                sample = step(sample, rng)
        return sample
