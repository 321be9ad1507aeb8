"""The nuScenes metric against an info file instead of the tables.

Info files may know velocities that the tables are too short for (an excerpt of one frame), and
the figures of a part of a split can be had.  Where the tables are complete both ways agree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception3d.data.frame import Annotations, Frame, frame_from_record
from perception3d.data.info_file import InfoFile
from perception3d.data.poses import Floats, rotations_from_quaternions
from perception3d.errors import UserError
from perception3d.metrics.detection import Booleans, GlobalBoxes, evaluate_boxes
from perception3d.metrics.nuscenes_official import plain
from perception3d.metrics.nuscenes_results import Results

BICYCLE_RACK = "static_object.bicycle_rack"
CYCLES = ("bicycle", "motorcycle")


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
    truth: list[GlobalBoxes] = []
    found: list[GlobalBoxes] = []
    for index in range(len(info)):
        frame = frame_from_record(info.record(index), Path(), info.classes)
        if frame.token not in results:
            continue
        if frame.annotations is None:
            raise UserError(
                f"{ann_file} has no annotations to evaluate against; "
                "write the submission with --format-only --out DIR"
            )
        number = len(truth)
        truth.append(_ground_truth(number, frame, frame.annotations))
        found.append(_detections(number, frame, frame.annotations, results[frame.token]))
    if len(truth) < len(results):
        raise UserError(
            f"{len(results) - len(truth)} of {len(results)} predicted frames are not in "
            f"{ann_file}; evaluate with the info file of the same split"
        )
    summary = evaluate_boxes(GlobalBoxes.cat(truth), GlobalBoxes.cat(found))
    return {key: plain(value) for key, value in summary.items()}


def _ground_truth(number: int, frame: Frame, boxes: Annotations) -> GlobalBoxes:
    rows = np.array([name is not None for name in boxes.names], dtype=bool)
    count = int(rows.sum())
    truth = GlobalBoxes(
        frames=np.full(count, number),
        names=np.array([name for name in boxes.names if name is not None], dtype=np.str_),
        centers=boxes.translation[rows],
        sizes=boxes.boxes[rows, 3:6],
        yaws=_yaws(boxes.rotation[rows]),
        velocities=boxes.velocity[rows],
        attributes=np.array(boxes.attributes, dtype=np.str_)[rows],
        distances=_distances(boxes.translation[rows], frame),
        num_points=(boxes.num_lidar_pts + boxes.num_radar_pts)[rows],
        scores=np.full(count, -1.0),
    )
    return truth.take(~_parked(truth, boxes))


def _detections(
    number: int, frame: Frame, boxes: Annotations, results: Sequence[Mapping[str, Any]]
) -> GlobalBoxes:
    def column(key: str, *shape: int) -> Floats:
        return np.array([box[key] for box in results], dtype=np.float64).reshape(-1, *shape)

    centers = column("translation", 3)
    found = GlobalBoxes(
        frames=np.full(len(results), number),
        names=np.array([box["detection_name"] for box in results], dtype=np.str_),
        centers=centers,
        sizes=column("size", 3)[:, [1, 0, 2]],  # width, length, height -> that of info files
        yaws=_yaws(column("rotation", 4)),
        velocities=column("velocity", 2),
        attributes=np.array([box["attribute_name"] for box in results], dtype=np.str_),
        distances=_distances(centers, frame),
        num_points=np.full(len(results), -1),
        scores=column("detection_score"),
    )
    return found.take(~_parked(found, boxes))


def _yaws(quaternions: Floats) -> Floats:
    turns = rotations_from_quaternions(quaternions)
    return np.arctan2(turns[:, 1, 0], turns[:, 0, 0])


def _distances(centers: Floats, frame: Frame) -> Floats:
    distances: Floats = np.linalg.norm(centers[:, :2] - frame.ego_to_global[:2, 3], axis=1)
    return distances


def _parked(boxes: GlobalBoxes, annotations: Annotations) -> Booleans:
    """Say which cycles have their centre in a bicycle rack: racks are not annotated one by one."""
    racks = np.array([name == BICYCLE_RACK for name in annotations.categories], dtype=bool)
    turns = rotations_from_quaternions(annotations.rotation[racks])
    offsets = boxes.centers[:, None] - annotations.translation[racks]
    local = np.einsum("rji,krj->kri", turns, offsets)  # into the axes of each rack
    inside = (np.abs(local) <= annotations.boxes[racks, 3:6] / 2).all(axis=2).any(axis=1)
    parked: Booleans = inside & np.isin(boxes.names, CYCLES)
    return parked
