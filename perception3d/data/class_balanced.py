"""Class-balanced resampling of frames."""

import logging
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from perception3d.data.nuscenes import NuScenesDataset
from perception3d.structures import Sample

logger = logging.getLogger(__name__)


def balanced_frames(frames_of_class: dict[str, list[int]], rng: np.random.Generator) -> list[int]:
    """Draw frames so that every class has the same share.

    Class-balanced grouping and sampling (Zhu et al., arXiv:1908.09492, section 3.1): of the
    frames that show a class, as many are drawn, with replacement, as the total over all classes
    divided by the number of classes.

    Args:
        frames_of_class: frames that show each class; classes without frames take no part.
        rng: random stream.

    Returns:
        Frame numbers, class by class.
    """
    present = [frames for frames in frames_of_class.values() if frames]
    share = sum(map(len, present)) // max(len(present), 1)
    return [int(frame) for frames in present for frame in rng.choice(frames, share)]


class ClassBalancedDataset:
    """A data set whose frames are drawn so that rare classes are seen as often as common ones.

    Args:
        dataset: the data set, or its dict(type=..., ...).
        seed: seed of the draw, which is made once: an epoch is the same list of frames, the random
            transforms differ.
    """

    def __init__(self, dataset: NuScenesDataset | dict[str, Any], seed: int = 0) -> None:
        built = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.dataset: NuScenesDataset = built
        frames_of_class: dict[str, list[int]] = {name: [] for name in self.dataset.classes}
        for index in range(len(self.dataset)):
            for name in self.dataset.class_names(index):
                frames_of_class[name].append(index)
        absent = [name for name, frames in frames_of_class.items() if not frames]
        if absent:
            logger.warning(
                "ClassBalancedDataset: no frame of %s shows %s",
                self.dataset.info.path,
                ", ".join(absent),
            )
        self.frames = balanced_frames(frames_of_class, np.random.default_rng(seed))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of the data set."""
        return dict(self.dataset.metainfo)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class list that labels index."""
        return self.dataset.classes

    def full_init(self) -> None:
        """Do nothing: mmengine asks for it, everything is loaded already."""

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch (0-based), before its first frame is loaded; reaches all workers."""
        self.dataset.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        """Tell the seed of the random transforms; reaches all workers."""
        self.dataset.set_seed(seed)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Return draw `index`: frames drawn twice are transformed differently."""
        return self.dataset.sample(self.frames[index], self.dataset.clock.generator(index))
