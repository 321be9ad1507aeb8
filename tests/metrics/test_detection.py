"""The metric on boxes without tables: what we add to the devkit's evaluator, and how it behaves."""

import json
import math

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from perception3d.metrics.detection import evaluate_boxes, outside_racks

ERRORS = ("trans_err", "vel_err", "scale_err", "orient_err", "attr_err")
FOUR = [(0, 0), (10, 0), (20, 0), (30, 0)]


def boxes(centers, scores=None, *, token="frame", name="car", yaw=0.0, **columns):
    """Make boxes of one frame, 2 m cubes at the car's height; columns hold a value per box."""
    made = EvalBoxes()
    made.add_boxes(token, [])
    for i, (x, y) in enumerate(centers):
        values = {
            "sample_token": token,
            "translation": (float(x), float(y), 0.0),
            "size": (2.0, 2.0, 2.0),
            "rotation": tuple(Quaternion(axis=(0, 0, 1), radians=yaw).elements),
            "velocity": (0.0, 0.0),
            "num_pts": 5 if scores is None else -1,
            "detection_name": name,
            "detection_score": -1.0 if scores is None else float(scores[i]),
            "attribute_name": "vehicle.parked" if name == "car" else "",
        }
        made.add_boxes(token, [DetectionBox(**values | {k: v[i] for k, v in columns.items()})])
    return made


def test_perfect():
    figures = evaluate_boxes(boxes(FOUR), boxes(FOUR, np.linspace(0.9, 0.6, 4)))
    assert figures["mean_dist_aps"]["car"] == pytest.approx(1.0)
    assert figures["mean_ap"] == pytest.approx(0.1)  # nine classes are absent
    counts = figures["num_ground_truth"]
    assert {name for name, count in counts.items() if count} == {"car"}
    assert counts["car"] == 4
    assert all(figures["label_tp_errors"]["car"][error] < 1e-12 for error in ERRORS)
    # 5 * mAP + three errors over 10 classes, velocity and attribute over 8, heading over 9
    scores = [0.1, 0.1, 1 / 9, 1 / 8, 1 / 8]
    assert figures["nd_score"] == pytest.approx((5 * 0.1 + sum(scores)) / 10)


def test_nothing_found_and_nothing_there():
    found = boxes(FOUR, [0.5] * 4)
    for truth, detections in ((boxes(FOUR), boxes([])), (boxes([]), found), (boxes([]), boxes([]))):
        figures = evaluate_boxes(truth, detections)
        assert figures["mean_ap"] == figures["nd_score"] == 0.0
        assert figures["label_tp_errors"]["car"] == dict.fromkeys(ERRORS, 1.0)


@pytest.mark.parametrize(
    ("offset", "expected"), [(0.49, 1.0), (0.5, 0.75), (1.5, 0.5), (3.9, 0.25), (4.0, 0.0)]
)
def test_match_is_strictly_below_the_threshold(offset, expected):
    figures = evaluate_boxes(boxes([(0, 0)]), boxes([(offset, 0)], [0.5]))
    assert figures["mean_dist_aps"]["car"] == pytest.approx(expected)


def test_precision_at_half_recall():
    """Two of four found, no false positive: precision 1 up to recall 0.5, then 0."""
    figures = evaluate_boxes(boxes(FOUR), boxes(FOUR[:2], [0.9, 0.8]))
    assert figures["label_aps"]["car"][2.0] == pytest.approx(40 / 90)


def test_frames_do_not_mix():
    figures = evaluate_boxes(boxes([(0, 0)]), boxes([(0, 0)], [0.9], token="other"))
    assert figures["mean_ap"] == 0.0


@pytest.mark.parametrize(
    ("name", "distances", "expected"),
    [("car", (0, 0, 49.9, 50.0), 3), ("traffic_cone", (29.9, 30.0, 31.0, 0), 2)],
)
def test_far_boxes_do_not_count(name, distances, expected):
    places = [(distance, 0.0, 0.0) for distance in distances]
    figures = evaluate_boxes(boxes(FOUR, name=name, ego_translation=places), boxes([]))
    assert figures["num_ground_truth"][name] == expected
    # A far detection is no false positive either.
    found = boxes(FOUR, [0.9] * 4, name=name, ego_translation=places)
    truth = boxes(FOUR, name=name, ego_translation=places)
    assert evaluate_boxes(truth, found)["mean_dist_aps"][name] == pytest.approx(1.0)


def test_empty_boxes_do_not_count():
    figures = evaluate_boxes(boxes(FOUR, num_pts=[0, 1, 2, 0]), boxes([]))
    assert figures["num_ground_truth"]["car"] == 2


def test_settings():
    config = config_factory("detection_cvpr_2019")
    config.dist_ths = [2.0]
    figures = evaluate_boxes(boxes([(0, 0)]), boxes([(1.5, 0)], [0.5]), config)
    assert figures["mean_dist_aps"]["car"] == pytest.approx(1.0)
    config.class_range = {**config.class_range, "car": 10}
    assert evaluate_boxes(
        boxes(FOUR, ego_translation=[(x, y, 0.0) for x, y in FOUR]), boxes([]), config
    )["num_ground_truth"] == dict.fromkeys(config.class_names, 0) | {"car": 1}


@pytest.mark.parametrize(("name", "expected"), [("car", math.pi - 0.2), ("barrier", 0.2)])
def test_barriers_have_no_front(name, expected):
    found = boxes([(0, 0)], [0.9], name=name, yaw=math.pi - 0.2)
    errors = evaluate_boxes(boxes([(0, 0)], name=name), found)["label_tp_errors"][name]
    assert errors["orient_err"] == pytest.approx(expected)
    assert math.isnan(errors["vel_err"]) == (name == "barrier")


def test_unknown_truth_is_left_out_of_errors():
    truth = boxes(
        FOUR,
        velocity=[(math.nan, math.nan), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)],
        attribute_name=["vehicle.parked", "", "", ""],
    )
    found = boxes(FOUR, np.linspace(0.9, 0.6, 4), velocity=[(3.0, 3.0)] * 4)
    errors = evaluate_boxes(truth, found)["label_tp_errors"]["car"]
    assert errors["attr_err"] == 0.0
    assert 0 < errors["vel_err"] <= math.hypot(3, 3)


def test_cycles_in_racks_are_left_out():
    rack = Box([10, 0, 0], [2, 6, 2], Quaternion(axis=(0, 0, 1), radians=math.pi / 2))  # w, l, h
    places = [(10, 2.9), (10, 3.1), (12, 0)]  # inside along its length, beyond it, beside it
    for name in ("bicycle", "motorcycle"):
        kept = outside_racks(boxes(places, name=name)["frame"], [rack])
        assert [box.translation[:2] for box in kept] == [(10, 3.1), (12, 0)]
    assert len(outside_racks(boxes(places)["frame"], [rack])) == 3
    assert len(outside_racks(boxes(places, name="bicycle")["frame"], [])) == 3


@pytest.mark.golden
def test_recorded_figures(golden_detection):
    """golden/detection/eval_synthetic.json, tolerance 1e-9."""
    case = json.loads((golden_detection / "eval_synthetic.json").read_text())
    truth, found = (
        EvalBoxes.deserialize(
            {
                token: [
                    box | {"velocity": [math.nan if v is None else v for v in box["velocity"]]}
                    for box in boxes
                ]
                for token, boxes in case[name].items()
            },
            DetectionBox,
        )
        for name in ("ground_truth", "detections")
    )
    figures = evaluate_boxes(truth, found)
    assert sum(figures["num_ground_truth"].values()) > 0
    for name, expected in case["summary"]["mean_dist_aps"].items():
        assert figures["mean_dist_aps"][name] == pytest.approx(expected, abs=1e-9)
    for name, expected in case["summary"]["tp_errors"].items():
        assert figures["tp_errors"][name] == pytest.approx(expected, abs=1e-9)
    assert figures["nd_score"] == pytest.approx(case["summary"]["nd_score"], abs=1e-9)
