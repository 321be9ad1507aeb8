"""Replays the nuScenes detection metric."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perception3d.data.poses import rotations_from_quaternions
from perception3d.metrics.detection import (
    NUSCENES,
    DetectionSettings,
    Floats,
    GlobalBoxes,
    evaluate_boxes,
)
from perception3d.metrics.nuscenes_official import (
    CONFIG,
    load_tables,
    official_metrics,
    split_tokens,
)
from perception3d.parity.case import Array, Case, CaseError, flatten_json, read_json

_OFFICIAL = "official_DetectionEval_"
_OWN = "evalboxes_route_with_true_velocities"

BoxesOfSample = Mapping[str, Sequence[Mapping[str, Any]]]


def expected_detection_eval(case: Case) -> dict[str, Array]:
    """Return the recorded figures; the boxes in the same file are no figures."""
    document = case.document
    return flatten_json(document.get("summary", document))


def replay_detection_eval(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind detection_eval; the metric runs on the CPU whatever the device."""
    settings = read_settings(case)
    if "summary" in case.document:
        truth, found = case.document["ground_truth"], case.document["detections"]
        return dict(flatten_json(_evaluate(case, truth, found, settings)))
    results = read_json(case.beside(case.config["detections_file"]))
    figures: dict[str, object] = {}
    for route in case.document:
        if route == _OWN:
            truth = read_json(case.beside(case.config["ground_truth_file"]))["ground_truth"]
            figures[route] = _evaluate(case, truth, results["results"], settings)
        elif route == f"{_OFFICIAL}{case.config['eval_set']}":
            figures[route] = _official(case, results)
        else:
            raise CaseError(f"no such route to the figures: {route}")
    return dict(flatten_json(figures))


def read_settings(case: Case) -> DetectionSettings:
    """Return the settings of a case."""
    config = case.config
    if config["metric_config"] != CONFIG:
        raise CaseError(f"metric_config must be {CONFIG!r}, got {config['metric_config']!r}")
    return replace(
        NUSCENES,
        class_range=config["class_range"],
        thresholds=tuple(config["dist_thresholds"]),
        error_threshold=config["tp_threshold"],
        min_recall=config["min_recall"],
        min_precision=config["min_precision"],
        map_weight=config["mean_ap_weight"],
    )


def _evaluate(
    case: Case, truth: BoxesOfSample, found: BoxesOfSample, settings: DetectionSettings
) -> dict[str, Any]:
    limit = case.config["max_boxes_per_sample"]
    crowded = [token for token, boxes in found.items() if len(boxes) > limit]
    if crowded:
        raise CaseError(f"{len(crowded)} samples have more than {limit} detections: {crowded[:3]}")
    tokens = sorted(truth.keys() | found.keys())
    return evaluate_boxes(
        GlobalBoxes.cat([_boxes(i, truth.get(t, ()), ()) for i, t in enumerate(tokens)]),
        GlobalBoxes.cat(
            [_boxes(i, found.get(t, ()), truth.get(t, ())) for i, t in enumerate(tokens)]
        ),
        settings,
    )


def _boxes(
    number: int, boxes: Sequence[Mapping[str, Any]], neighbours: Sequence[Mapping[str, Any]]
) -> GlobalBoxes:
    """Turn the EvalBoxes of one sample into rows.

    Args:
        number: of the sample.
        boxes: as EvalBoxes serialise them.
        neighbours: boxes of the same sample that know where the car is, for boxes that do not.
    """

    def column(key: str, *shape: int) -> Floats:
        values = [[np.nan if v is None else v for v in np.ravel(box[key])] for box in boxes]
        return np.array(values, dtype=np.float64).reshape(len(boxes), *shape)

    if not boxes:
        return GlobalBoxes.empty()
    turns = rotations_from_quaternions(column("rotation", 4))
    centers = column("translation", 3)
    return GlobalBoxes(
        frames=np.full(len(boxes), number),
        names=np.array([box["detection_name"] for box in boxes], dtype=np.str_),
        centers=centers,
        sizes=column("size", 3),
        yaws=np.arctan2(turns[:, 1, 0], turns[:, 0, 0]),
        velocities=column("velocity", 2),
        attributes=np.array([box["attribute_name"] for box in boxes], dtype=np.str_),
        distances=_distances(boxes, centers, neighbours),
        num_points=np.array([box.get("num_pts", -1) for box in boxes], dtype=np.int64),
        scores=column("detection_score"),
    )


def _distances(
    boxes: Sequence[Mapping[str, Any]], centers: Floats, neighbours: Sequence[Mapping[str, Any]]
) -> Floats:
    """Return the distance of each box from the car in the xy plane, m."""
    if all("ego_translation" in box for box in boxes):
        offsets = np.array([box["ego_translation"][:2] for box in boxes], dtype=np.float64)
    elif neighbours:
        near = neighbours[0]
        car = np.subtract(near["translation"][:2], near["ego_translation"][:2])
        offsets = centers[:, :2] - car
    else:
        raise CaseError("a sample has detections but nothing that says where the car is")
    distances: Floats = np.linalg.norm(offsets, axis=1)
    return distances


def _official(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    """Return what the devkit's evaluator says on the tables of the case's data set."""
    eval_set = case.config["eval_set"]
    data_root = _data_root(case)
    versions = [path.parent.name for path in sorted(data_root.glob("*/sample.json"))]
    for version in versions:
        tables = load_tables(data_root, version)
        if set(split_tokens(tables, eval_set)) == set(results["results"]):
            return official_metrics(results, tables, eval_set)
    raise CaseError(f"no tables under {data_root} hold the samples of {eval_set}, got {versions}")


def _data_root(case: Case) -> Path:
    """Return the folder of the case's data set: beside the golden vectors, or under P3D_DATA."""
    data = os.environ.get("P3D_DATA")
    shared = Path(data).parent if data else case.path.resolve().parents[2]
    folder: Path = shared / case.config["dataset"]
    if not folder.is_dir():
        raise CaseError(f"data set {folder} is missing (set P3D_DATA to the folder that holds it)")
    return folder
