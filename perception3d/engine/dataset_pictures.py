"""What tools/visualize.py does: frames of a data set, with annotations or detections, as PNG."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perception3d.data.nuscenes import NuScenesDataset
from perception3d.engine.check_data import check_range
from perception3d.engine.demo import Say, show_or_say
from perception3d.engine.inference import Predictor
from perception3d.errors import UserError
from perception3d.structures import Sample
from perception3d.transforms.load import LoadAnnotations, LoadCameras
from perception3d.visualization.pictures import PictureOptions, save_pictures
from perception3d.visualization.scene import SceneStyle


@dataclass(frozen=True)
class DatasetPictureOptions:
    """Which frames and boxes are drawn.

    Attributes:
        out_dir: gets the pictures.
        num_frames: at most so many, evenly spread over the data set; None: all.
        score_threshold: detections below it are left out.
        show_annotations: draw annotations beside detections.
        show: open a window per frame.
        pictures: how the pictures look.
    """

    out_dir: Path
    num_frames: int | None = None
    score_threshold: float = 0.3
    show_annotations: bool = True
    show: bool = False
    pictures: PictureOptions = field(default_factory=PictureOptions)


def draw_dataset(
    dataset: Any,
    predictor: Predictor | None,
    options: DatasetPictureOptions,
    say: Say,
) -> list[Path]:
    """Draw frames of a data set.

    Annotations and camera images that the pipeline leaves out are loaded in addition, as long as
    the pipeline has not moved the points.

    Args:
        dataset: gives Samples by index; `metainfo["classes"]` names the classes.
        predictor: finds the boxes; None: annotations only.
        options: which frames, and how.
        say: gets lines of text for the user.

    Returns:
        The files written.

    Raises:
        UserError: num_frames below 1, classes of model and data set that differ, annotations
            asked for where no frame has any, or a frame without a point in the model's range.
    """
    if options.num_frames is not None and options.num_frames < 1:
        raise UserError(f"--frames {options.num_frames}: must be at least 1")
    classes = tuple(dataset.metainfo["classes"])
    if predictor is not None and predictor.classes != classes:
        raise UserError(
            f"the model knows the classes {', '.join(predictor.classes)}, the data set "
            f"{', '.join(classes)}; give both the same list"
        )
    written: list[Path] = []
    for index in _spread(len(dataset), options.num_frames):
        sample = complete(dataset, index)
        if predictor is None and sample.targets is None:
            raise UserError(
                f"frame {sample.token} has no annotations (a test split?); use --mode pred"
            )
        found = None
        if predictor is not None:
            frame = torch.zeros(len(sample.points), dtype=torch.int32)
            limits = predictor.point_cloud_range
            check_range(sample.points, frame, (sample.token,), limits)
            found = predictor(sample)
            found = found.take(found.scores >= options.score_threshold)
            if not options.show_annotations:
                sample = replace(sample, targets=None)
        files = save_pictures(sample, classes, options.out_dir, found, options.pictures)
        say(f"frame {sample.token}: {', '.join(str(file) for file in files)}")
        if options.show:
            style = SceneStyle(options.pictures.forward, color_by=options.pictures.color_by)
            show_or_say(sample, classes, found, style, say)
        written += files
    return written


def complete(dataset: Any, index: int) -> Sample:
    """Return a frame with what its info file has beyond the pipeline: annotations, images."""
    sample: Sample = dataset[index]
    moved = not torch.equal(sample.augmentation, torch.eye(4, dtype=torch.float64))
    if not isinstance(dataset, NuScenesDataset):
        return sample
    frame, rng = dataset.frame(index), np.random.default_rng(0)
    if sample.targets is None and not moved:
        sample = LoadAnnotations()(sample, frame, rng)
    if sample.cameras is None and frame.cameras:
        sample = LoadCameras()(sample, frame, rng)
    return sample


def _spread(size: int, count: int | None) -> list[int]:
    """Return `count` of the indices below `size`, first and last included, evenly spread."""
    if count is None or count >= size:
        return list(range(size))
    return [round(place) for place in np.linspace(0, size - 1, count).tolist()]
