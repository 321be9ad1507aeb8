"""nuScenes' detection figures of boxes that need no tables; the devkit computes them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box

CONFIG = "detection_cvpr_2019"
CYCLES = ("bicycle", "motorcycle")


class BoxesEval(DetectionEval):  # type: ignore[misc]  # the devkit ships no types
    """The devkit's evaluator on boxes at hand; its own constructor reads them from tables.

    Args:
        ground_truth: boxes by sample token.
        detections: boxes by sample token.
        config: ranges and thresholds.
    """

    def __init__(
        self, ground_truth: EvalBoxes, detections: EvalBoxes, config: DetectionConfig
    ) -> None:
        self.gt_boxes = ground_truth
        self.pred_boxes = detections
        self.cfg = config
        self.verbose = False


def evaluate_boxes(
    ground_truth: EvalBoxes, detections: EvalBoxes, config: DetectionConfig | None = None
) -> dict[str, Any]:
    """Compute nuScenes' detection figures.

    Boxes out of the class's range (by `ego_translation`) and ground truth without sensor points
    (`num_pts` 0) do not count, as in the devkit.

    Args:
        ground_truth: annotated boxes by sample token, velocities NaN where unknown.
        detections: predicted boxes by sample token, with finite scores.
        config: ranges and thresholds; None: detection_cvpr_2019.

    Returns:
        As `summary_of`.
    """
    config = config or config_factory(CONFIG)
    evaluation = BoxesEval(_counted(ground_truth, config), _counted(detections, config), config)
    return summary_of(evaluation)


def summary_of(evaluation: DetectionEval) -> dict[str, Any]:
    """Run an evaluator of the devkit.

    Returns:
        What it writes as metrics_summary.json, without time and settings: label_aps
        {class: {threshold: AP}}, mean_dist_aps {class: AP}, mean_ap, label_tp_errors
        {class: {error: value, NaN where undefined}}, tp_errors, tp_scores, nd_score. And
        num_ground_truth {class: boxes that count}: classes without any pull mean_ap down by
        their AP of 0.
    """
    metrics, _ = evaluation.evaluate()
    summary: dict[str, Any] = metrics.serialize()
    del summary["cfg"], summary["eval_time"]
    counted = Counter(box.detection_name for box in evaluation.gt_boxes.all)
    summary["num_ground_truth"] = {name: counted[name] for name in evaluation.cfg.class_names}
    return summary


def _counted(boxes: EvalBoxes, config: DetectionConfig) -> EvalBoxes:
    kept = EvalBoxes()
    for token in boxes.sample_tokens:
        kept.add_boxes(
            token,
            [
                box
                for box in boxes[token]
                if box.ego_dist < config.class_range[box.detection_name] and box.num_pts != 0
            ],
        )
    return kept


def outside_racks(boxes: Sequence[DetectionBox], racks: Sequence[Box]) -> list[DetectionBox]:
    """Leave out the cycles whose centre is in a bicycle rack: those are not annotated singly."""
    return [
        box
        for box in boxes
        if box.detection_name not in CYCLES
        or not any(points_in_box(rack, np.array(box.translation)[:, None])[0] for rack in racks)
    ]
