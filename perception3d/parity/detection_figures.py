"""Replays the nuScenes detection metric; needs nuscenes-devkit."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig

from perception3d.metrics.detection import CONFIG, evaluate_boxes
from perception3d.metrics.nuscenes_official import (
    load_tables,
    official_metrics,
    split_tokens,
)
from perception3d.parity.case import Case, CaseError, read_json

_OFFICIAL = "official_DetectionEval_"
_OWN = "evalboxes_route_with_true_velocities"

BoxesOfSample = Mapping[str, Sequence[Mapping[str, Any]]]


def detection_figures(case: Case) -> dict[str, Any]:
    """Return the figures of the routes that a case records."""
    settings = read_settings(case)
    if "summary" in case.document:
        return _evaluate(case.document["ground_truth"], case.document["detections"], settings)
    results = read_json(case.beside(case.config["detections_file"]))
    figures: dict[str, Any] = {}
    for route in case.document:
        if route == _OWN:
            truth = read_json(case.beside(case.config["ground_truth_file"]))["ground_truth"]
            figures[route] = _evaluate(truth, results["results"], settings)
        elif route == f"{_OFFICIAL}{case.config['eval_set']}":
            figures[route] = _official(case, results)
        else:
            raise CaseError(f"no such route to the figures: {route}")
    return figures


def read_settings(case: Case) -> DetectionConfig:
    """Return the settings of a case."""
    config = case.config
    if config["metric_config"] != CONFIG:
        raise CaseError(f"metric_config must be {CONFIG!r}, got {config['metric_config']!r}")
    changes = {
        "class_range": config["class_range"],
        "dist_ths": config["dist_thresholds"],
        "dist_th_tp": config["tp_threshold"],
        "min_recall": config["min_recall"],
        "min_precision": config["min_precision"],
        "max_boxes_per_sample": config["max_boxes_per_sample"],
        "mean_ap_weight": config["mean_ap_weight"],
    }
    return DetectionConfig.deserialize({**config_factory(CONFIG).serialize(), **changes})


def _evaluate(
    truth: BoxesOfSample, found: BoxesOfSample, settings: DetectionConfig
) -> dict[str, Any]:
    limit = settings.max_boxes_per_sample
    crowded = [token for token, boxes in found.items() if len(boxes) > limit]
    if crowded:
        raise CaseError(f"{len(crowded)} samples have more than {limit} detections: {crowded[:3]}")
    truth_boxes, found_boxes = EvalBoxes(), EvalBoxes()
    for token in sorted(truth.keys() | found.keys()):
        truth_boxes.add_boxes(token, _boxes(truth.get(token, ()), ()))
        found_boxes.add_boxes(token, _boxes(found.get(token, ()), truth.get(token, ())))
    return evaluate_boxes(truth_boxes, found_boxes, settings)


def _boxes(
    boxes: Sequence[Mapping[str, Any]], neighbours: Sequence[Mapping[str, Any]]
) -> list[DetectionBox]:
    """Read the boxes of one sample.

    Args:
        boxes: as EvalBoxes serialise them, null for NaN.
        neighbours: boxes of the same sample that know where the car is, for boxes that do not.
    """
    read = []
    for box in boxes:
        content = {**box, "velocity": [np.nan if v is None else v for v in box["velocity"]]}
        if "ego_translation" not in box:
            if not neighbours:
                raise CaseError("a sample has detections but nothing that says where the car is")
            near = neighbours[0]
            car = np.subtract(near["translation"], near["ego_translation"])
            content["ego_translation"] = np.subtract(box["translation"], car).tolist()
        read.append(DetectionBox.deserialize(content))
    return read


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
