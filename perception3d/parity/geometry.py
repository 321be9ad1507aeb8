"""Replays the box operators: IoU, suppression, membership of points."""

import math
import re

import torch
from torch import Tensor

from perception3d.ops import (
    box_iou,
    box_of_point,
    box_overlap,
    circle_nms,
    points_in_boxes,
    rotated_nms,
)
from perception3d.parity.case import Case, CaseError

Results = dict[str, object]

_COLUMNS = ("x", "y", "z", "dx", "dy", "dz", "yaw")
_KINDS = {"iou_bev": "bev", "giou_bev": "giou_bev", "iou_3d": "3d", "giou_3d": "giou_3d"}
_OPEN_FACES = re.compile(r"< half \+ (\S+)")


def replay_iou(case: Case, device: torch.device) -> Results:
    """Replay kind iou: the matrix boxes_a x boxes_b, named pairs, and turned footprints."""
    _demand(case, margin=0.0)
    boxes_a, boxes_b = (_boxes(case, f"in.boxes_{side}", device) for side in "ab")
    results = _measures("out", boxes_a, boxes_b, aligned=False)
    for name in case.config.get("pair_sets", ()):
        pair_a, pair_b = (_boxes(case, f"in.{name}.boxes_{side}", device) for side in "ab")
        results.update(_measures(f"out.{name}", pair_a, pair_b, aligned=True))
    if "turned_footprint_deg" in case.config:
        turn = math.radians(case.config["turned_footprint_deg"])
        turned = [box.clone() for box in (boxes_a, boxes_b)]
        for box in turned:
            box[:, 6] += turn
        measures = _measures("out", *turned, aligned=False)
        results.update({f"{name}_turned": value for name, value in measures.items()})
    return results


def _measures(prefix: str, boxes_a: Tensor, boxes_b: Tensor, *, aligned: bool) -> Results:
    results: Results = {f"{prefix}.inter_area": box_overlap(boxes_a, boxes_b, aligned=aligned)}
    for name, kind in _KINDS.items():
        results[f"{prefix}.{name}"] = box_iou(boxes_a, boxes_b, kind=kind, aligned=aligned)
    return results


def replay_nms(case: Case, device: torch.device) -> Results:
    """Replay kind nms: visiting order and kept rows of every set at every threshold."""
    _demand(
        case,
        tie_rule="equal scores: lower original index first",
        suppress_iou="IoU > threshold",
        suppress_circle="squared centre distance <= r",
    )
    results: Results = {}
    for name in case.config["sets"]:
        boxes = _boxes(case, f"in.{name}.boxes", device)
        scores = case.tensor(f"in.{name}.scores", device)
        # No IoU is above 1: all boxes stay, in the order in which they are visited.
        results[f"out.{name}.order"] = rotated_nms(boxes, scores, 1.0)
        for threshold in case.config["iou_thresholds"]:
            results[f"out.{name}.keep_{threshold}"] = rotated_nms(boxes, scores, threshold)
        for distance in case.config["circle_squared_distances"]:
            keep = circle_nms(boxes[:, :2], scores, distance)
            results[f"out.{name}.circle_keep_{distance}"] = keep
    return results


def replay_points_in_boxes(case: Case, device: torch.device) -> Results:
    """Replay kind points_in_boxes: all pairs, counts and first boxes under every rule."""
    points, boxes = case.tensor("in.points", device), _boxes(case, "in.boxes", device)
    results: Results = {}
    for name, rule in case.config["rules"].items():
        margin = _margin(name, rule)
        box_of_member, point_of_member = points_in_boxes(points, boxes, margin=margin)
        prefix = f"out.{name}"
        results[f"{prefix}.member_box"] = box_of_member
        results[f"{prefix}.member_point"] = point_of_member
        results[f"{prefix}.count"] = torch.bincount(box_of_member, minlength=boxes.shape[0])
        results[f"{prefix}.box_of_point"] = box_of_point(points, boxes, margin=margin)
    return results


def _margin(name: str, rule: dict[str, str]) -> float:
    """Return the margin that stands for a rule such as {"xy": "< half + 1e-5", "z": "<= half"}."""
    if rule == {"xy": "<= half", "z": "<= half"}:
        return 0.0
    open_faces = _OPEN_FACES.fullmatch(rule.get("xy", ""))
    if open_faces is None or rule.get("z") != "<= half" or float(open_faces[1]) <= 0:
        raise CaseError(f"no operator has the membership rule {name}: {rule}")
    return float(open_faces[1])


def _demand(case: Case, **settings: object) -> None:
    """Raise CaseError where the case has another value than the one our operators have."""
    for name, ours in settings.items():
        theirs = case.config.get(name, ours)
        if theirs != ours:
            raise CaseError(f"{name} must be {ours!r}, the operators have no other, got {theirs!r}")


def _boxes(case: Case, key: str, device: torch.device) -> Tensor:
    """Return boxes with their columns in our order; the case names its own in `box`."""
    names = case.config.get("box", ",".join(_COLUMNS)).split(",")
    try:
        columns = [names.index(name) for name in _COLUMNS]
    except ValueError as error:
        raise CaseError(f"box must have the columns {_COLUMNS}, got {names}") from error
    return case.tensor(key, device)[:, columns]
