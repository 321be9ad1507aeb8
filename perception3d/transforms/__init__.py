"""Transforms: one class each; loaders fill a Sample from a Frame, the others change it."""

from perception3d.transforms.geometry import (
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
)
from perception3d.transforms.load import LoadAnnotations, LoadCameras, LoadPoints
from perception3d.transforms.pipeline import Loader, Pipeline, Transform
from perception3d.transforms.sampling import FilterBoxes, FilterRange, ShufflePoints

__all__ = [
    "FilterBoxes",
    "FilterRange",
    "LoadAnnotations",
    "LoadCameras",
    "LoadPoints",
    "Loader",
    "Pipeline",
    "RandomFlip",
    "RandomRotate",
    "RandomScale",
    "RandomTranslate",
    "ShufflePoints",
    "Transform",
]
