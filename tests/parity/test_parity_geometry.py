"""The replays of the box operators: what they read from a case, and the float64 bound."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from perception3d.ops import box_iou, box_overlap
from perception3d.parity import Case, CaseError, read_cases
from perception3d.parity.case import Rule
from perception3d.parity.geometry import replay_iou, replay_nms, replay_points_in_boxes
from perception3d.parity.voxelization import replay_voxelize, replay_voxelize_hard

CPU = torch.device("cpu")


def make_case(tmp_path, config, **arrays):
    np.savez(tmp_path / "case.npz", **arrays)
    rules = (("*", Rule(exact=True)),)
    return Case("case", "kind", "system", None, config, rules, (), tmp_path / "case.npz")


@pytest.mark.golden
def test_iou_meets_the_float64_bound(golden_detection):
    """The case states 1e-9 for float64 implementations; the replay runs in float32."""
    case = next(case for case in read_cases(golden_detection) if case.name == "iou")
    for pair_set in ("", "pair.", "pair_small."):
        a, b = (
            torch.from_numpy(case.array(f"in.{pair_set}boxes_{side}")).double() for side in "ab"
        )
        aligned = bool(pair_set)
        for name, kind in (("iou_bev", "bev"), ("giou_bev", "giou_bev"), ("iou_3d", "3d"),
                           ("giou_3d", "giou_3d")):  # fmt: skip
            wanted = torch.from_numpy(case.array(f"out.{pair_set}{name}"))
            result = box_iou(a, b, kind=kind, aligned=aligned)
            torch.testing.assert_close(result, wanted, atol=1e-9, rtol=0)
        area = torch.from_numpy(case.array(f"out.{pair_set}inter_area"))
        result = box_overlap(a, b, aligned=aligned)
        torch.testing.assert_close(result, area, atol=1e-9, rtol=0)


def test_iou_reads_columns_pairs_and_turn(tmp_path):
    ours = np.array([[0, 0, 0, 4, 2, 1, 0]], np.float32)
    theirs = ours[:, [6, 0, 1, 2, 3, 4, 5]]
    config = {
        "box": "yaw,x,y,z,dx,dy,dz",
        "pair_sets": ["twins"],
        "margin": 0.0,
        "turned_footprint_deg": 90,
    }
    shifted = theirs + np.array([[0, 0, 2, 0, 0, 0, 0]], np.float32)  # one width aside
    arrays = {
        "in.boxes_a": theirs,
        "in.boxes_b": shifted,
        "in.twins.boxes_a": theirs,
        "in.twins.boxes_b": theirs,
    }
    case = make_case(tmp_path, config, **arrays)
    results = replay_iou(case, CPU)
    assert results["out.iou_bev"].tolist() == [[0.0]]
    assert results["out.iou_bev_turned"].item() == pytest.approx(1 / 3)
    assert results["out.twins.giou_3d"].tolist() == [1.0]
    with pytest.raises(CaseError, match="margin must be 0.0"):
        replay_iou(replace(case, config={**config, "margin": 0.01}), CPU)
    with pytest.raises(CaseError, match="box must have the columns"):
        replay_iou(replace(case, config={**config, "box": "x,y,z,w,l,h,yaw"}), CPU)


def test_nms_reads_sets_thresholds_and_rules(tmp_path):
    boxes = np.array([[i, 0, 0, 2, 2, 2, 0] for i in range(3)], np.float32)
    scores = np.array([0.1, 0.3, 0.2], np.float32)
    config = {"sets": ["line"], "iou_thresholds": [0.3, 0.4], "circle_squared_distances": [1.0]}
    case = make_case(tmp_path, config, **{"in.line.boxes": boxes, "in.line.scores": scores})
    results = {key: value.tolist() for key, value in replay_nms(case, CPU).items()}
    assert results == {
        "out.line.order": [1, 2, 0],
        "out.line.keep_0.3": [1],
        "out.line.keep_0.4": [1, 2, 0],
        "out.line.circle_keep_1.0": [1],
    }
    with pytest.raises(CaseError, match="suppress_iou must be"):
        replay_nms(replace(case, config={**config, "suppress_iou": "IoU >= threshold"}), CPU)


def test_points_in_boxes_reads_the_rules(tmp_path):
    boxes = np.array([[0, 0, 0, 2, 2, 2, 0]], np.float32)
    points = np.array([[1, 0, 0], [1.2, 0, 0], [0, 0, 1.2]], np.float32)
    rules = {
        "closed": {"xy": "<= half", "z": "<= half"},
        "wide": {"xy": "< half + 0.25", "z": "<= half"},
    }
    arrays = {"in.points": points, "in.boxes": boxes}
    case = make_case(tmp_path, {"rules": rules}, **arrays)
    results = replay_points_in_boxes(case, CPU)
    assert results["out.closed.member_point"].tolist() == [0]
    assert results["out.wide.member_point"].tolist() == [0, 1]
    assert results["out.wide.count"].tolist() == [2]
    assert results["out.wide.box_of_point"].tolist() == [0, 0, -1]
    for rule in ({"xy": "< half", "z": "<= half"}, {"xy": "<= half", "z": "< half"}):
        with pytest.raises(CaseError, match="no operator has the membership rule"):
            replay_points_in_boxes(replace(case, config={"rules": {"other": rule}}), CPU)


def test_voxelize_reads_grids_order_and_columns(tmp_path):
    points = np.array([[0.5, 1.5, 0.5, 8], [1.5, 0.5, 0.5, 4], [1.6, 0.6, 0.6, 2]], np.float32)
    grid = {
        "voxel_size_xyz": [1.0, 1.0, 1.0],
        "point_cloud_range": [0.0, 0.0, 0.0, 2.0, 2.0, 1.0],
        "grid_size_xyz": [2, 2, 1],
    }
    config = {"grids": {"unit": grid}, "row_order": "z,y,x ascending", "mean_columns": 2}
    case = make_case(tmp_path, config, **{"in.points": points})
    results = replay_voxelize(case, CPU)
    assert results["out.unit.f32.coords"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    assert results["out.unit.f32.count"].tolist() == [2, 1]
    mean = torch.tensor([[1.55, 0.55], [0.5, 1.5]])
    torch.testing.assert_close(results["out.unit.f32.mean"], mean)
    assert results["out.unit.f32.num_points"] == 3
    by_x = replay_voxelize(replace(case, config={**config, "row_order": "x,y,z ascending"}), CPU)
    assert by_x["out.unit.f32.coords"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(CaseError, match="row_order must name columns"):
        replay_voxelize(replace(case, config={**config, "row_order": "random"}), CPU)
    wrong = {**grid, "grid_size_xyz": [3, 2, 1]}
    with pytest.raises(CaseError, match="must have"):
        replay_voxelize(replace(case, config={**config, "grids": {"unit": wrong}}), CPU)


def test_voxelize_hard_reads_the_limits(tmp_path):
    points = np.array([[1.5, 0.5, 0.5, 4], [0.5, 0.5, 0.5, 8], [1.7, 0.5, 0.5, 2]], np.float32)
    limits = {
        "voxel_size_xyz": [1.0, 1.0, 1.0],
        "point_cloud_range": [0.0, 0.0, 0.0, 2.0, 1.0, 1.0],
        "max_points": 1,
        "max_voxels": 1,
    }
    config = {"sets": {"few": limits, "many": {**limits, "max_points": 2, "max_voxels": 9}}}
    case = make_case(tmp_path, config, **{"in.points": points})
    results = replay_voxelize_hard(case, CPU)
    assert results["out.few.coords"].tolist() == [[0, 0, 0, 1]]
    assert results["out.few.mean"].tolist() == [[1.5, 0.5, 0.5, 4.0]]
    assert results["out.many.coords"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert results["out.many.num_points"].tolist() == [2, 1]
    torch.testing.assert_close(results["out.many.mean"][0], torch.tensor([1.6, 0.5, 0.5, 3.0]))
