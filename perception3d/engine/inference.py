"""A trained detector as a callable on single frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.data.collate import collate
from perception3d.engine.config import load_config, plain
from perception3d.engine.network import load_network
from perception3d.errors import UserError
from perception3d.structures import Detections, Sample


class Predictor:
    """Finds boxes in one frame at a time.

    Attributes:
        net: the network, in eval mode.
        classes: names that the labels of its detections count.
        point_columns: columns F that a point must have.
        point_cloud_range: (x, y, z, x, y, z) low and high corner that it looks at, m.

    Args:
        net: `predict(batch) -> list[Detections]`, with a `voxelizer` and an `encoder` as
            `perception3d.models.detector.Detector` has them.
        classes: class names in label order.

    Raises:
        UserError: the network has no voxeliser or encoder.
    """

    def __init__(self, net: nn.Module, classes: Sequence[str]) -> None:
        self.net = net.eval()
        self.classes = tuple(classes)
        voxelizer, encoder = getattr(net, "voxelizer", None), getattr(net, "encoder", None)
        if voxelizer is None or encoder is None:
            raise UserError(
                f"config: {type(net).__name__} has no voxelizer and encoder, so it takes no point "
                "clouds; use the config of a LiDAR detector"
            )
        self.point_cloud_range = tuple(float(bound) for bound in voxelizer.point_cloud_range)
        self.point_columns = int(encoder.in_channels)

    @staticmethod
    def from_files(
        config: str | Path,
        checkpoint: str | Path,
        device: str | None = None,
        config_options: Sequence[str] = (),
    ) -> "Predictor":
        """Build a network from its config and load its weights, strictly.

        Args:
            config: config file.
            checkpoint: weights of the same model; every name and shape must fit.
            device: "cpu", "cuda" or "cuda:N"; None: CUDA where there is any.
            config_options: `KEY=VALUE` settings.

        Raises:
            UserError: anything wrong with config, checkpoint or device, or no class names.
        """
        settings = load_config(config, config_options)
        classes = class_names(plain(settings))
        if classes is None:
            raise UserError(
                f"{config}: gives no class names; write classes=[...] into the model's head"
            )
        return Predictor(load_network(settings, checkpoint, device), classes)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return torch.device(next(self.net.parameters()).device)

    def __call__(self, sample: Sample) -> Detections:
        """Return the boxes of a frame, on the CPU, by descending score.

        Raises:
            ValueError: the points have another number of columns than the network reads.
        """
        columns = sample.points.shape[1]
        if columns != self.point_columns:
            raise ValueError(
                f"Predictor: points must be (P, {self.point_columns}), got (P, {columns})"
            )
        batch = collate([sample])["batch"].to(self.device)
        with torch.inference_mode():
            predict: Any = self.net.predict
            (found,) = predict(batch)
        order = found.scores.argsort(descending=True, stable=True)
        detections: Detections = found.take(order).to("cpu")
        return detections

    def detect(self, points: Tensor, token: str = "points") -> Detections:
        """Return the boxes of a cloud (P, point_columns) float32 that belongs to no data set."""
        return self(Sample(token, points, torch.eye(4, dtype=torch.float64)))


def class_names(sections: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that a config gives: those of the model, else of a data set.

    Args:
        sections: from `perception3d.engine.config.plain`.
    """
    for name in ("model", "test_dataloader", "val_dataloader", "train_dataloader"):
        found = _find_classes(sections.get(name))
        if found is not None:
            return found
    return None


def _find_classes(node: object) -> tuple[str, ...] | None:
    if isinstance(node, Mapping):
        names = node.get("classes")
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
        children: Sequence[object] = list(node.values())
    elif isinstance(node, list | tuple):
        children = node
    else:
        return None
    for child in children:
        found = _find_classes(child)
        if found is not None:
            return found
    return None
