"""The nuScenes metric against an info file instead of the tables.

Info files may know velocities that the tables are too short for (an excerpt of one frame), and
the figures of a part of a split can be had.  Where the tables are complete both ways agree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from perception3d.data.frame import Annotations, Frame, frame_from_record
from perception3d.data.info_file import InfoFile
from perception3d.data.poses import Floats
from perception3d.errors import UserError
from perception3d.metrics.detection import evaluate_boxes, outside_racks
from perception3d.metrics.nuscenes_official import plain
from perception3d.metrics.nuscenes_results import Results

BICYCLE_RACK = "static_object.bicycle_rack"


def info_metrics(results: Results, ann_file: Path) -> dict[str, Any]:
    """Evaluate result boxes on the frames they cover.

    Args:
        results: result boxes by sample token.
        ann_file: info file that holds these frames.

    Returns:
        As `nuscenes_official.official_metrics`.

    Raises:
        UserError: a frame that the info file lacks, or that has no annotations.
    """
    info = InfoFile(ann_file)
    truth, found = EvalBoxes(), EvalBoxes()
    for index in range(len(info)):
        frame = frame_from_record(info.record(index), Path(), info.classes)
        if frame.token not in results:
            continue
        if frame.annotations is None:
            raise UserError(
                f"{ann_file} has no annotations to evaluate against; "
                "write the submission with --format-only --out DIR"
            )
        racks = _racks(frame.annotations)
        truth.add_boxes(frame.token, outside_racks(_ground_truth(frame, frame.annotations), racks))
        found.add_boxes(frame.token, outside_racks(_detections(frame, results[frame.token]), racks))
    if len(truth) < len(results):
        raise UserError(
            f"{len(results) - len(truth)} of {len(results)} predicted frames are not in "
            f"{ann_file}; evaluate with the info file of the same split"
        )
    summary = evaluate_boxes(truth, found)
    return {key: plain(value) for key, value in summary.items()}


def _ground_truth(frame: Frame, boxes: Annotations) -> list[DetectionBox]:
    return [
        DetectionBox(
            sample_token=frame.token,
            translation=tuple(boxes.translation[row]),
            size=tuple(boxes.boxes[row, [4, 3, 5]]),  # width, length, height
            rotation=tuple(boxes.rotation[row]),
            velocity=tuple(boxes.velocity[row]),
            ego_translation=_from_car(boxes.translation[row], frame),
            num_pts=int(boxes.num_lidar_pts[row] + boxes.num_radar_pts[row]),
            detection_name=name,
            attribute_name=boxes.attributes[row],
        )
        for row, name in enumerate(boxes.names)
        if name is not None
    ]


def _detections(frame: Frame, results: Sequence[Mapping[str, Any]]) -> list[DetectionBox]:
    return [
        DetectionBox.deserialize(
            {**box, "ego_translation": _from_car(np.array(box["translation"]), frame)}
        )
        for box in results
    ]


def _racks(boxes: Annotations) -> list[Box]:
    return [
        Box(boxes.translation[row], boxes.boxes[row, [4, 3, 5]], Quaternion(boxes.rotation[row]))
        for row, name in enumerate(boxes.categories)
        if name == BICYCLE_RACK
    ]


def _from_car(center: Floats, frame: Frame) -> tuple[float, ...]:
    return tuple((center - frame.ego_to_global[:3, 3]).tolist())
