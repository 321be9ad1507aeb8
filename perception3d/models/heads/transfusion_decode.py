"""Predictions of a TransFusionHead to detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perception3d.errors import unknown
from perception3d.models.heads.transfusion_branches import TransFusionOutput
from perception3d.models.heads.transfusion_code import QueryCode
from perception3d.models.losses import full_precision
from perception3d.ops.rotated_nms import rotated_nms
from perception3d.structures import Boxes3D, Detections


@dataclass(frozen=True)
class TransFusionDecoder:
    """Turns queries into boxes; a query keeps the class that it was picked for.

    The score is the class probability times the heat of the query.

    Attributes:
        score_threshold: scores must exceed it; looked at before they are corrected.
        center_range: low and high corner (x, y, z, x, y, z) of the centres that are kept, m.
        iou_rectifier: exponent a in score^(1 - a) * iou^a with the predicted IoU; None leaves
            scores alone.
        iou_threshold: of the rotated BEV NMS among the boxes of a class, by class name; no NMS
            for classes that are not named.
        pre_max, post_max: boxes of such a class before and after the NMS; None: all.

    Raises:
        ValueError: a setting out of its range.
    """

    score_threshold: float = 0.0
    center_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    iou_rectifier: float | None = None
    iou_threshold: Mapping[str, float] = field(default_factory=dict)
    pre_max: int | None = 1000
    post_max: int | None = 100

    def __post_init__(self) -> None:
        if len(self.center_range) != 6:
            raise ValueError(
                "TransFusionDecoder: center_range must be (x, y, z, x, y, z), "
                f"got {tuple(self.center_range)}"
            )
        if self.iou_rectifier is not None and not 0 <= self.iou_rectifier <= 1:
            raise ValueError(
                f"TransFusionDecoder: iou_rectifier must lie in [0, 1], got {self.iou_rectifier}"
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise ValueError unless the classes of the NMS are among the given ones."""
        for name in self.iou_threshold:
            if name not in classes:
                raise ValueError(f"TransFusionDecoder: {unknown(name, classes, 'class')}")

    def decode(
        self, output: TransFusionOutput, classes: Sequence[str], code: QueryCode
    ) -> list[Detections]:
        """Return the detections of every frame by descending score, ties by lower query."""
        boxes = code.decode(full_precision(output.codes))
        scores = self.scores(output)
        kept = self.counted(boxes, scores)
        if output.iou is not None and self.iou_rectifier is not None:
            iou = ((full_precision(output.iou)[:, 0] + 1) / 2).clamp(0, 1)
            scores = scores ** (1 - self.iou_rectifier) * iou**self.iou_rectifier
        frames = []
        for number in range(output.batch_size):
            found = Detections(Boxes3D(boxes[number]), scores[number], output.query_labels[number])
            frames.append(self._suppress(found.take(kept[number]), classes))
        return frames

    def scores(self, output: TransFusionOutput) -> Tensor:
        """Return the scores (B, Q) before correction."""
        label = output.query_labels[:, None]
        heat = full_precision(output.query_scores).gather(1, label)
        probability = full_precision(output.heatmap).gather(1, label).sigmoid()
        return (probability * heat).squeeze(1)

    def counted(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return which of (B, Q, 9) boxes lie in range and score enough, (B, Q) bool."""
        low, high = boxes.new_tensor(list(self.center_range)).view(2, 3)
        centers = boxes[..., :3]
        in_range: Tensor = ((centers >= low) & (centers <= high)).all(dim=-1)
        return in_range & (scores > self.score_threshold)

    def _suppress(self, found: Detections, classes: Sequence[str]) -> Detections:
        """Return what the NMS keeps, by descending score."""
        kept = torch.ones_like(found.labels, dtype=torch.bool)
        for name, threshold in self.iou_threshold.items():
            rows = (found.labels == classes.index(name)).nonzero().squeeze(1)
            best = rotated_nms(
                found.boxes.tensor[rows, :7],
                found.scores[rows],
                threshold,
                pre_max=self.pre_max,
                post_max=self.post_max,
            )
            kept[rows] = False
            kept[rows[best]] = True
        order = found.scores.argsort(descending=True, stable=True)
        return found.take(order[kept[order]])
