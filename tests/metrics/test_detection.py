"""The metric on arrays: by hand, against the devkit, against recorded figures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.data_classes import DetectionBox
from scipy.spatial.transform import Rotation

from perception3d.data.poses import rotations_from_quaternions
from perception3d.metrics.detection import ERRORS, NUSCENES, GlobalBoxes, evaluate_boxes

CLASSES = tuple(NUSCENES.class_range)


def boxes_of(records):
    """Turn {token: [box, ...]} of result files into arrays; frames are numbered in order."""
    rows = [(i, box) for i, boxes in enumerate(records.values()) for box in boxes]
    if not rows:
        return GlobalBoxes.empty()

    def column(key, *shape, default=None):
        values = [box.get(key, default) for _, box in rows]
        return np.array(values, dtype=np.float64).reshape(-1, *shape)

    turns = rotations_from_quaternions(column("rotation", 4))
    return GlobalBoxes(
        frames=np.array([i for i, _ in rows]),
        names=np.array([box["detection_name"] for _, box in rows]),
        centers=column("translation", 3),
        sizes=column("size", 3),
        yaws=np.arctan2(turns[:, 1, 0], turns[:, 0, 0]),
        velocities=column("velocity", 2),
        attributes=np.array([box["attribute_name"] for _, box in rows]),
        distances=np.linalg.norm(column("ego_translation", 3)[:, :2], axis=1),
        num_points=column("num_pts", default=-1).astype(np.int64),
        scores=column("detection_score"),
    )


def assert_same_figures(found, expected, path=""):
    assert found.keys() == expected.keys(), path
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same_figures(found[key], value, f"{path}.{key}")
        elif value is None or math.isnan(value):
            assert math.isnan(found[key]), f"{path}.{key}"
        else:
            assert found[key] == pytest.approx(value, abs=1e-9), f"{path}.{key}"


def one_class(centers, scores=None, name="car", **changes):
    """Make boxes of one frame, 2 m cubes heading along x."""
    count = len(centers)
    boxes = GlobalBoxes(
        frames=np.zeros(count, dtype=np.int64),
        names=np.full(count, name),
        centers=np.array([(*center, 0.0) for center in centers]).reshape(-1, 3),
        sizes=np.full((count, 3), 2.0),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        attributes=np.full(count, "vehicle.parked"),
        distances=np.zeros(count),
        num_points=np.full(count, 5 if scores is None else -1),
        scores=np.array(scores if scores is not None else [-1.0] * count),
    )
    return replace(boxes, **changes)


class TestByHand:
    TRUTH = one_class([(0, 0), (10, 0), (20, 0), (30, 0)])

    def test_perfect(self):
        figures = evaluate_boxes(self.TRUTH, replace(self.TRUTH, scores=np.linspace(0.9, 0.6, 4)))
        assert figures["mean_dist_aps"]["car"] == pytest.approx(1.0)
        assert figures["mean_ap"] == pytest.approx(0.1)  # nine classes are absent
        counts = figures["num_ground_truth"]
        assert {name for name, count in counts.items() if count} == {"car"}
        assert counts["car"] == 4
        assert all(figures["label_tp_errors"]["car"][error] < 1e-12 for error in ERRORS)
        assert figures["tp_errors"]["trans_err"] == pytest.approx(0.9)
        # 5 * mAP + three errors over 10 classes, velocity and attribute over 8, heading over 9
        scores = [0.1, 0.1, 1 / 9, 1 / 8, 1 / 8]
        assert figures["nd_score"] == pytest.approx((5 * 0.1 + sum(scores)) / 10)

    def test_nothing_found_and_nothing_there(self):
        for truth, found in (
            (self.TRUTH, GlobalBoxes.empty()),
            (GlobalBoxes.empty(), self.TRUTH),
            (GlobalBoxes.empty(), GlobalBoxes.empty()),
        ):
            figures = evaluate_boxes(truth, found)
            assert figures["mean_ap"] == figures["nd_score"] == 0.0
            assert figures["label_tp_errors"]["car"] == dict.fromkeys(ERRORS, 1.0)

    @pytest.mark.parametrize(
        ("offset", "expected"), [(0.49, 1.0), (0.5, 0.75), (1.5, 0.5), (3.9, 0.25), (4.0, 0.0)]
    )
    def test_match_is_strictly_below_the_threshold(self, offset, expected):
        truth = one_class([(0, 0)])
        figures = evaluate_boxes(truth, one_class([(offset, 0)], [0.5]))
        assert figures["mean_dist_aps"]["car"] == pytest.approx(expected)

    def test_precision_at_half_recall(self):
        """Two of four found, no false positive: precision 1 up to recall 0.5, then 0."""
        found = one_class([(0, 0), (10, 0)], [0.9, 0.8])
        figures = evaluate_boxes(self.TRUTH, found)
        assert figures["label_aps"]["car"]["2.0"] == pytest.approx(40 / 90)

    def test_each_takes_the_nearest_free_box(self):
        truth = one_class([(0, 0), (1, 0)])
        found = one_class([(0.9, 0), (0.95, 0)], [0.9, 0.8])  # the second has to take the first
        aps = evaluate_boxes(truth, found)["label_aps"]["car"]
        assert aps["1.0"] == pytest.approx(1.0)
        assert aps["0.5"] < 0.5

    def test_of_equal_scores_the_later_goes_first(self):
        truth = one_class([(0, 0)])
        near_first = evaluate_boxes(truth, one_class([(0.1, 0), (0.4, 0)], [0.5, 0.5]))
        near_last = evaluate_boxes(truth, one_class([(0.4, 0), (0.1, 0)], [0.5, 0.5]))
        assert near_first["label_tp_errors"]["car"]["trans_err"] == pytest.approx(0.4)
        assert near_last["label_tp_errors"]["car"]["trans_err"] == pytest.approx(0.1)

    def test_frames_do_not_mix(self):
        truth = one_class([(0, 0)])
        found = one_class([(0, 0)], [0.9], frames=np.array([1]))
        assert evaluate_boxes(truth, found)["mean_ap"] == 0.0

    def test_far_and_empty_boxes_do_not_count(self):
        far = replace(self.TRUTH, distances=np.array([0, 0, 49.9, 50.0]))
        assert len(far.counted(NUSCENES)) == 3
        empty = replace(self.TRUTH, num_points=np.array([0, 1, 2, 0]))
        assert len(empty.counted(NUSCENES)) == 2
        cones = replace(self.TRUTH, names=np.full(4, "traffic_cone"), distances=np.full(4, 30.0))
        assert len(cones.counted(NUSCENES)) == 0

    @pytest.mark.parametrize(("name", "expected"), [("car", math.pi - 0.2), ("barrier", 0.2)])
    def test_barriers_have_no_front(self, name, expected):
        truth = one_class([(0, 0)], name=name)
        found = one_class([(0, 0)], [0.9], name=name, yaws=np.array([math.pi - 0.2]))
        errors = evaluate_boxes(truth, found)["label_tp_errors"][name]
        assert errors["orient_err"] == pytest.approx(expected)
        assert math.isnan(errors["vel_err"]) == (name == "barrier")

    def test_unknown_truth_is_left_out_of_errors(self):
        truth = replace(
            self.TRUTH,
            velocities=np.array([[np.nan, np.nan], [0, 0], [0, 0], [0, 0]]),
            attributes=np.array(["vehicle.parked", "", "", ""]),
        )
        found = replace(
            self.TRUTH, velocities=np.full((4, 2), 3.0), scores=np.linspace(0.9, 0.6, 4)
        )
        errors = evaluate_boxes(truth, found)["label_tp_errors"]["car"]
        assert errors["attr_err"] == 0.0
        assert 0 < errors["vel_err"] <= math.hypot(3, 3)


def random_records(rng, num_frames, truth):
    records = {}
    for frame in range(num_frames):
        boxes = []
        for _ in range(rng.integers(0, 12)):
            w, x, y, z = Rotation.from_euler("zyx", rng.normal(0, [2, 0.05, 0.05])).as_quat()[
                [3, 0, 1, 2]
            ]
            offset = rng.integers(-12, 12, 2) * 2.5 + rng.normal(0, 0 if truth else 0.9, 2)
            boxes.append(
                {
                    "sample_token": str(frame),
                    "translation": [100 + offset[0], 50 + offset[1], 1.0],
                    "size": rng.uniform(0.3, 5, 3).tolist(),
                    "rotation": [w, x, y, z],
                    "velocity": [math.nan] * 2
                    if truth and rng.random() < 0.2
                    else rng.normal(0, 4, 2).tolist(),
                    "ego_translation": [*offset.tolist(), 0.0],
                    "num_pts": int(rng.integers(0, 5)) if truth else -1,
                    "detection_name": str(rng.choice(["car", "barrier", "traffic_cone", "bus"])),
                    "detection_score": -1.0 if truth else float(rng.integers(0, 20) / 20),
                    "attribute_name": str(rng.choice(["", "vehicle.moving", "vehicle.parked"])),
                }
            )
        records[str(frame)] = boxes
    return records


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), num_frames=st.integers(1, 4))
def test_agrees_with_the_devkit(seed, num_frames):
    rng = np.random.default_rng(seed)
    truth, found = (random_records(rng, num_frames, truth) for truth in (True, False))
    figures = evaluate_boxes(boxes_of(truth), boxes_of(found))

    config = config_factory("detection_cvpr_2019")
    sides = []
    for records in (truth, found):
        side = EvalBoxes()
        for token, boxes in records.items():
            side.add_boxes(
                token,
                [
                    box
                    for box in map(DetectionBox.deserialize, boxes)
                    if box.ego_dist < config.class_range[box.detection_name] and box.num_pts
                ],
            )
        sides.append(side)
    for name in CLASSES:
        for threshold in config.dist_ths:
            data = accumulate(*sides, name, config.dist_fcn_callable, threshold)
            expected = calc_ap(data, config.min_recall, config.min_precision)
            assert figures["label_aps"][name][str(threshold)] == pytest.approx(expected, abs=1e-12)
        data = accumulate(*sides, name, config.dist_fcn_callable, config.dist_th_tp)
        for error in ERRORS:
            value = figures["label_tp_errors"][name][error]
            if not math.isnan(value):
                expected = calc_tp(data, config.min_recall, error)
                assert value == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_order_of_frames_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth, found = (boxes_of(random_records(rng, 3, truth)) for truth in (True, False))
    found = replace(found, scores=rng.permutation(len(found)) / (len(found) + 1))  # no ties
    order = np.argsort(rng.permutation(3)[truth.frames], kind="stable")
    shuffled = evaluate_boxes(truth.take(order), found.take(rng.permutation(len(found))))
    assert_same_figures(shuffled, evaluate_boxes(truth, found))


@pytest.mark.golden
def test_recorded_figures(golden_detection):
    """golden/detection/eval_synthetic.json, tolerance 1e-9."""
    case = json.loads((golden_detection / "eval_synthetic.json").read_text())
    figures = evaluate_boxes(boxes_of(case["ground_truth"]), boxes_of(case["detections"]))
    assert sum(figures.pop("num_ground_truth").values()) > 0
    assert_same_figures(figures, case["summary"])


def test_columns_must_agree():
    with pytest.raises(ValueError, match="GlobalBoxes: names must have 4 rows, got 3"):
        replace(TestByHand.TRUTH, names=np.full(3, "car"))
