"""The nuScenes detection metric as a pure function on arrays.

Same figures as nutonomy/nuscenes-devkit: nuscenes/eval/detection/{algo,evaluate}.py, without
tables, files or classes per box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")


@dataclass(frozen=True)
class DetectionSettings:
    """Settings of the metric; the defaults are nuScenes' detection_cvpr_2019.

    Attributes:
        class_range: m from the car, by class; farther boxes do not count.
        thresholds: centre distances of a match, m.
        error_threshold: the one of them that the errors are measured at, m.
        min_recall: lower recalls do not count.
        min_precision: lower precisions count as 0.
        half_turn_classes: headings are compared modulo pi.
        undefined: errors that a class does not have.
        map_weight: weight of mAP in NDS, against 1 for each error.
    """

    class_range: Mapping[str, float]
    thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    error_threshold: float = 2.0
    min_recall: float = 0.1
    min_precision: float = 0.1
    half_turn_classes: tuple[str, ...] = ("barrier",)
    undefined: Mapping[str, tuple[str, ...]] | None = None
    map_weight: int = 5


NUSCENES = DetectionSettings(
    class_range={
        "car": 50,
        "truck": 50,
        "bus": 50,
        "trailer": 50,
        "construction_vehicle": 50,
        "pedestrian": 40,
        "motorcycle": 40,
        "bicycle": 40,
        "traffic_cone": 30,
        "barrier": 30,
    },
    undefined={
        "traffic_cone": ("orient_err", "vel_err", "attr_err"),
        "barrier": ("vel_err", "attr_err"),
    },
)


@dataclass(frozen=True)
class GlobalBoxes:
    """Boxes of many frames in the global frame, one row each; within a frame in the given order.

    Attributes:
        frames: (K,) number of the frame.
        names: (K,) class names.
        centers: (K, 3) m.
        sizes: (K, 3) m, axes in any fixed order, positive.
        yaws: (K,) rad.
        velocities: (K, 2) m/s, NaN where unknown.
        attributes: (K,) names, "" without one.
        distances: (K,) m from the car, in the xy plane.
        num_points: (K,) sensor points inside; -1 for detections.
        scores: (K,); not looked at in ground truth.
    """

    frames: Integers
    names: NDArray[np.str_]
    centers: Floats
    sizes: Floats
    yaws: Floats
    velocities: Floats
    attributes: NDArray[np.str_]
    distances: Floats
    num_points: Integers
    scores: Floats

    def __post_init__(self) -> None:
        count = len(self.frames)
        for field in fields(self):
            rows = len(getattr(self, field.name))
            if rows != count:
                raise ValueError(f"GlobalBoxes: {field.name} must have {count} rows, got {rows}")

    @staticmethod
    def empty() -> "GlobalBoxes":
        """Return no boxes."""
        names, rows = np.array([], dtype=np.str_), np.zeros(0, dtype=np.int64)
        none, pairs, triples = np.zeros(0), np.zeros((0, 2)), np.zeros((0, 3))
        return GlobalBoxes(rows, names, triples, triples, none, pairs, names, none, rows, none)

    @staticmethod
    def cat(parts: Sequence["GlobalBoxes"]) -> "GlobalBoxes":
        """Join groups of boxes, in order."""
        parts = parts or [GlobalBoxes.empty()]
        return GlobalBoxes(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(GlobalBoxes)
            )
        )

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: Integers | Booleans) -> "GlobalBoxes":
        """Return the boxes of the given rows or row mask."""
        return GlobalBoxes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def counted(self, settings: DetectionSettings) -> "GlobalBoxes":
        """Return the boxes that count: in range of the car, and not known to be empty."""
        ranges = np.array([settings.class_range.get(str(name), 0.0) for name in self.names])
        return self.take((self.distances < ranges) & (self.num_points != 0))


def evaluate_boxes(
    ground_truth: GlobalBoxes, detections: GlobalBoxes, settings: DetectionSettings = NUSCENES
) -> dict[str, Any]:
    """Compute nuScenes' detection figures.

    Args:
        ground_truth: annotated boxes.
        detections: predicted boxes of the same frames, with finite scores.
        settings: ranges and thresholds.

    Returns:
        As the devkit's metrics_summary.json: label_aps {class: {threshold: AP}}, mean_dist_aps
        {class: AP}, mean_ap, label_tp_errors {class: {error: value, NaN where undefined}},
        tp_errors, tp_scores, nd_score; and num_ground_truth {class: boxes that count}, which the
        devkit does not tell: classes without any pull mean_ap down by their AP of 0.
    """
    truth, found = ground_truth.counted(settings), detections.counted(settings)
    label_aps: dict[str, dict[str, float]] = {}
    label_errors: dict[str, dict[str, float]] = {}
    for name in settings.class_range:
        truth_of_class, found_of_class = truth.take(truth.names == name), _ranked(found, name)
        pairs = _distances(truth_of_class, found_of_class)
        label_aps[name], label_errors[name] = {}, dict.fromkeys(ERRORS, 1.0)
        for threshold in settings.thresholds:
            match = _match(pairs, len(found_of_class), threshold)
            precision, confidence = _curve(match, found_of_class.scores, len(truth_of_class))
            label_aps[name][str(float(threshold))] = _average_precision(precision, settings)
            if threshold == settings.error_threshold and (match >= 0).any():
                half_turn = name in settings.half_turn_classes
                errors = _pair_errors(truth_of_class, found_of_class, match, half_turn)
                scores = found_of_class.scores[match >= 0]
                label_errors[name] = {
                    error: _mean_error(values, scores, confidence, settings)
                    for error, values in errors.items()
                }
        for error in (settings.undefined or {}).get(name, ()):
            label_errors[name][error] = float("nan")
    counts = {name: int((truth.names == name).sum()) for name in settings.class_range}
    return {**_summary(label_aps, label_errors, settings), "num_ground_truth": counts}


def _summary(
    label_aps: dict[str, dict[str, float]],
    label_errors: dict[str, dict[str, float]],
    settings: DetectionSettings,
) -> dict[str, Any]:
    class_aps = {name: float(np.mean(list(aps.values()))) for name, aps in label_aps.items()}
    mean_ap = float(np.mean(list(class_aps.values())))
    errors = {
        error: float(np.nanmean([values[error] for values in label_errors.values()]))
        for error in ERRORS
    }
    scores = {error: max(0.0, 1.0 - value) for error, value in errors.items()}
    total = settings.map_weight * mean_ap + sum(scores.values())
    return {
        "label_aps": label_aps,
        "mean_dist_aps": class_aps,
        "mean_ap": mean_ap,
        "label_tp_errors": label_errors,
        "tp_errors": errors,
        "tp_scores": scores,
        "nd_score": total / (settings.map_weight + len(scores)),
    }


def _ranked(boxes: GlobalBoxes, name: str) -> GlobalBoxes:
    """Return the boxes of a class by descending score; of equal scores the later box first."""
    chosen = boxes.take(boxes.names == name)
    return chosen.take(np.argsort(chosen.scores, kind="stable")[::-1])


def _distances(truth: GlobalBoxes, found: GlobalBoxes) -> list[tuple[Integers, Integers, Floats]]:
    """Return per frame: rows of ground truth, rows of detections, distances (found, truth)."""
    truth_rows, found_rows = _rows_of_frame(truth.frames), _rows_of_frame(found.frames)
    pairs = []
    for frame in sorted(truth_rows.keys() & found_rows.keys()):
        rows, ranks = truth_rows[frame], found_rows[frame]
        offsets = found.centers[ranks, None, :2] - truth.centers[None, rows, :2]
        pairs.append((rows, ranks, np.linalg.norm(offsets, axis=2)))
    return pairs


def _rows_of_frame(frames: Integers) -> dict[int, Integers]:
    """Return the rows of each frame, ascending."""
    order = np.argsort(frames, kind="stable")
    names, starts = np.unique(frames[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}


def _match(
    pairs: list[tuple[Integers, Integers, Floats]], num_found: int, threshold: float
) -> Integers:
    """Return the ground truth row of each detection (num_found,), -1 without.

    By descending score each detection takes the nearest box that is still free, if that is
    strictly closer than the threshold.
    """
    match = np.full(num_found, -1, dtype=np.int64)
    for rows, ranks, distances in pairs:
        free = distances.copy()
        for place, rank in enumerate(ranks):
            nearest = int(np.argmin(free[place]))
            if free[place, nearest] < threshold:
                match[rank] = rows[nearest]
                free[:, nearest] = np.inf
    return match


def _curve(match: Integers, scores: Floats, num_truth: int) -> tuple[Floats, Floats]:
    """Return precision and confidence at 101 recalls, 0 beyond the recall that is reached."""
    if not (match >= 0).any():
        return np.zeros_like(RECALLS), np.zeros_like(RECALLS)
    hits = np.cumsum(match >= 0).astype(np.float64)
    recall = hits / num_truth
    precision = hits / np.arange(1, len(match) + 1)
    return (
        np.interp(RECALLS, recall, precision, right=0),
        np.interp(RECALLS, recall, scores, right=0),
    )


def _first_recall(settings: DetectionSettings) -> int:
    return round(100 * settings.min_recall) + 1


def _average_precision(precision: Floats, settings: DetectionSettings) -> float:
    above = precision[_first_recall(settings) :] - settings.min_precision
    return float(np.mean(np.maximum(above, 0.0))) / (1.0 - settings.min_precision)


def _mean_error(
    values: Floats, scores: Floats, confidence: Floats, settings: DetectionSettings
) -> float:
    """Average the running mean of an error over the recalls that are reached."""
    reached = np.nonzero(confidence)[0]
    last = reached[-1] if len(reached) else 0
    first = _first_recall(settings)
    if last < first:
        return 1.0
    running = np.interp(confidence[::-1], scores[::-1], _running_mean(values)[::-1])[::-1]
    return float(np.mean(running[first : last + 1]))


def _running_mean(values: Floats) -> Floats:
    """Return the mean of the values so far, without NaN; ones if all are NaN."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    counts = np.cumsum(known)
    return np.divide(np.nancumsum(values), counts, out=np.zeros(len(values)), where=counts > 0)


def _pair_errors(
    truth: GlobalBoxes, found: GlobalBoxes, match: Integers, half_turn: bool
) -> dict[str, Floats]:
    """Return the errors of the matched pairs, by descending score."""
    truth, found = truth.take(match[match >= 0]), found.take(match >= 0)
    shared = np.minimum(truth.sizes, found.sizes).prod(axis=1)
    union = truth.sizes.prod(axis=1) + found.sizes.prod(axis=1) - shared
    period = np.pi if half_turn else 2 * np.pi
    turn = (truth.yaws - found.yaws + period / 2) % period - period / 2
    wrong = (truth.attributes != found.attributes).astype(np.float64)
    return {
        "trans_err": np.linalg.norm(found.centers[:, :2] - truth.centers[:, :2], axis=1),
        "scale_err": 1 - shared / union,
        "orient_err": np.abs(turn),
        "vel_err": np.linalg.norm(found.velocities - truth.velocities, axis=1),
        "attr_err": np.where(truth.attributes == "", np.nan, wrong),
    }
