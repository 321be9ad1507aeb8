"""Detections -> the nuScenes result format (https://www.nuscenes.org/object-detection)."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from perception3d.errors import UserError
from perception3d.structures import Detections

MAX_BOXES = 500
MOVING_SPEED = 0.2  # m/s
VEHICLES = ("car", "truck", "construction_vehicle", "bus", "trailer")
CYCLES = ("motorcycle", "bicycle")
CLASSES = (*VEHICLES, *CYCLES, "pedestrian", "barrier", "traffic_cone")
ATTRIBUTES = (
    "",
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "cycle.with_rider",
    "cycle.without_rider",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)
META_FLAGS = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")

Results = dict[str, list[dict[str, Any]]]


def attribute_of(class_name: str, speed: float) -> str:
    """Guess the attribute from class and speed (m/s), as open-mmlab/OpenPCDet does.

    What moves is moving or ridden; what stands has the most frequent attribute of standing
    objects of its class.  Barriers and traffic cones have none.
    """
    moving = speed > MOVING_SPEED
    if class_name in VEHICLES:
        still = "vehicle.stopped" if class_name == "bus" else "vehicle.parked"
        return "vehicle.moving" if moving else still
    if class_name in CYCLES:
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if class_name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    return ""


def finite(detections: Detections) -> Detections:
    """Return the detections without NaN and infinity; an unknown velocity (NaN) is no fault."""
    rows = detections.boxes.tensor[:, :7].isfinite().all(dim=1) & detections.scores.isfinite()
    return detections.take(rows)


def best(detections: Detections, max_boxes: int = MAX_BOXES) -> Detections:
    """Return at most `max_boxes` detections, by descending score."""
    order = detections.scores.sort(descending=True, stable=True).indices
    return detections.take(order[:max_boxes])


def result_boxes(
    token: str,
    detections: Detections,
    lidar_to_global: NDArray[np.float64],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """Turn detections into result boxes in the global frame.

    The tilt of the sensor is kept: a box that stands upright in the LiDAR frame is tilted like
    the car in the global one.

    Args:
        token: sample token.
        detections: boxes in the LiDAR frame; NaN velocities become 0.
        lidar_to_global: (4, 4).
        classes: names that the labels index.

    Raises:
        UserError: a label beyond the classes.
    """
    if not len(detections):
        return []
    if int(detections.labels.max()) >= len(classes):
        raise UserError(
            f"the model predicts label {int(detections.labels.max())}, the data set has "
            f"{len(classes)} classes ({', '.join(classes)}); give both the same class list"
        )
    boxes = detections.boxes.tensor.double().cpu().numpy()
    turn, shift = lidar_to_global[:3, :3], lidar_to_global[:3, 3]
    centers = boxes[:, :3] @ turn.T + shift
    known = np.where(np.isfinite(boxes[:, 7:9]), boxes[:, 7:9], 0.0)
    velocities = known @ turn[:2, :2].T
    headings = Rotation.from_matrix(turn) * Rotation.from_euler("z", boxes[:, 6:7])
    quaternions = headings.as_quat()[:, [3, 0, 1, 2]]  # scipy says x, y, z, w
    names = [classes[label] for label in detections.labels.tolist()]
    speeds = np.hypot(velocities[:, 0], velocities[:, 1]).tolist()
    columns = zip(
        centers.tolist(),
        boxes[:, [4, 3, 5]].tolist(),
        quaternions.tolist(),
        velocities.tolist(),
        names,
        detections.scores.double().tolist(),
        speeds,
        strict=True,
    )
    return [
        {
            "sample_token": token,
            "translation": center,
            "size": size,
            "rotation": rotation,
            "velocity": velocity,
            "detection_name": name,
            "detection_score": score,
            "attribute_name": attribute_of(name, speed),
        }
        for center, size, rotation, velocity, name, score, speed in columns
    ]


def validate_results(document: Mapping[str, Any], tokens: Iterable[str] | None = None) -> None:
    """Check a result document as strictly as the evaluation server does.

    Args:
        document: {"meta": flags, "results": {sample token: boxes}}.
        tokens: samples that must be there, no more and no fewer; None: any.

    Raises:
        UserError: naming the first thing that is wrong.
    """
    meta, results = document.get("meta"), document.get("results")
    if not isinstance(meta, Mapping) or not isinstance(results, Mapping):
        raise UserError("result file: expected an object with meta and results")
    for flag in META_FLAGS:
        if not isinstance(meta.get(flag), bool):
            raise UserError(f"result file: meta.{flag} must be true or false, got {meta.get(flag)}")
    if tokens is not None:
        check_tokens(results, tokens)
    for token, boxes in results.items():
        if len(boxes) > MAX_BOXES:
            raise UserError(
                f"result file: sample {token} has {len(boxes)} boxes, at most {MAX_BOXES} count"
            )
        for place, box in enumerate(boxes):
            problem = _box_problem(box, token)
            if problem:
                raise UserError(f"result file: box {place} of sample {token}: {problem}")


def check_tokens(results: Iterable[str], tokens: Iterable[str]) -> None:
    """Raise UserError unless the results cover these samples, no more and no fewer."""
    found, wanted = set(results), set(tokens)
    for text, odd in (("lack", wanted - found), ("hold foreign", found - wanted)):
        if odd:
            raise UserError(
                f"result file: {len(found)} samples, {len(wanted)} in the split; they {text} "
                f"{len(odd)}, e.g. {min(odd)}; predict the whole split, without indices or filters"
            )


def _box_problem(box: Mapping[str, Any], token: str) -> str | None:
    for key, count in (("translation", 3), ("size", 3), ("rotation", 4), ("velocity", 2)):
        values = box.get(key)
        if not isinstance(values, list) or len(values) != count:
            return f"{key} must be {count} numbers, got {values}"
        if not all(isinstance(value, float | int) and math.isfinite(value) for value in values):
            return f"{key} must be finite numbers, got {values}"
    if min(box["size"]) <= 0:
        return f"size must be positive, got {box['size']}"
    score = box.get("detection_score")
    if type(score) is not float or not math.isfinite(score):
        return f"detection_score must be a finite float, got {score!r}"
    for key, known in (
        ("sample_token", (token,)),
        ("detection_name", CLASSES),
        ("attribute_name", ATTRIBUTES),
    ):
        if box.get(key) not in known:
            return f"{key} must be one of {', '.join(map(repr, known))}, got {box.get(key)!r}"
    return None


def result_document(results: Results, *, use_camera: bool = False) -> dict[str, Any]:
    """Return the whole document of a submission, checked.

    Args:
        results: boxes of every sample of the split.
        use_camera: whether images were used, beside the LiDAR.

    Raises:
        UserError: what the evaluation server would refuse.
    """
    meta = {**dict.fromkeys(META_FLAGS, False), "use_lidar": True, "use_camera": use_camera}
    document = {"meta": meta, "results": results}
    validate_results(document)
    return document


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(document, allow_nan=False))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
