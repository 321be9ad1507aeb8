"""Points in boxes by nuscenes-devkit."""

from collections.abc import Callable

import numpy as np
import torch
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion
from torch import Tensor

from perception3d.benchmark.peers.points_in_boxes import Pairs, join


def devkit_box_by_box(points: Tensor, boxes: Tensor) -> Callable[[], Pairs]:
    """Return a loop over boxes with nuscenes-devkit's points_in_box; its boxes are made before."""
    columns = points[:, :3].T.contiguous().numpy()
    annotations = [
        Box(box[:3], [box[4], box[3], box[5]], Quaternion(axis=[0, 0, 1], radians=box[6]))
        for box in boxes.double().tolist()
    ]

    def run() -> Pairs:
        masks = [points_in_box(annotation, columns) for annotation in annotations]
        return join([torch.from_numpy(np.flatnonzero(mask)) for mask in masks])

    return run
