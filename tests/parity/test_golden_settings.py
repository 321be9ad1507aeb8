"""Replays read their settings from the case: with another value the recorded results are missed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perception3d.parity import read_cases, run_case

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("P3D_GOLDEN", ROOT.parent / "shared" / "golden"))
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden vectors in {GOLDEN}"),
]

CHANGES = [
    ("detection", "centerhead_targets", "gaussian_overlap", 0.7),
    ("detection", "centerhead_targets", "min_radius", 6),
    ("detection", "centerhead_targets", "max_objs", 3),
    ("detection", "centerhead_targets", "point_cloud_range_xy", [-54.1, -54.0, 53.9, 54.0]),
    ("detection", "centerhead_targets", "code", "dx_cell,dy_cell,z"),
    ("detection", "centerhead_loss_decode", "cls_weight", 1.1),
    ("detection", "centerhead_loss_decode", "loc_weight", 0.5),
    ("detection", "centerhead_loss_decode", "code_weights", [1.0] * 10),
    ("detection", "centerhead_loss_decode", "score_threshold", 0.8),
    ("detection", "centerhead_loss_decode", "topk", 2),
    ("detection", "centerhead_loss_decode", "post_center_range", [-10, -10, -10, 10, 10, 10]),
    ("detection", "centerhead_loss_decode", "nms_threshold", 0.9),
    ("detection", "centerhead_loss_decode", "nms_pre", 2),
    ("detection", "centerhead_loss_decode", "nms_post", 2),
    ("detection", "centerhead_loss_decode", "nms", "circle"),
    ("detection", "centerhead_iou_waymo", "iou_weight", 0.5),
    ("detection", "centerhead_iou_waymo", "iou_reg_loss", None),
    ("detection", "centerhead_iou_waymo", "iou_rectifier", [0.68, 0.7, 0.65]),
    ("detection", "centerhead_iou_waymo", "iou_rectifier", None),
    ("detection", "centerhead_iou_waymo", "nms_post", 2),
    ("detection", "centerhead_forward", "bn_eps", 1e-2),
    ("detection", "centerhead_forward", "head", "transfusion"),
    ("detection", "eval_synthetic", "dist_thresholds", [0.5, 1.0, 2.0, 3.0]),
    ("detection", "eval_synthetic", "tp_threshold", 4.0),
    ("detection", "eval_synthetic", "min_precision", 0.2),
    ("detection", "eval_synthetic", "min_recall", 0.2),
    ("detection", "eval_synthetic", "mean_ap_weight", 6),
    ("detection", "eval_synthetic", "metric_config", "detection_cvpr_2020"),
    ("detection", "transfusion_openpcdet", "num_heads", 4),
    ("detection", "transfusion_openpcdet", "bn_eps", 1e-2),
    ("detection", "transfusion_openpcdet", "nms_kernel", 1),
    ("detection", "transfusion_openpcdet", "nms_kernel_1_classes", [9]),
    ("detection", "transfusion_openpcdet", "activation", "gelu"),
    ("detection", "transfusion_openpcdet", "local_radius", 5),
    ("detection", "transfusion_openpcdet", "transpose_input", True),
    ("detection", "transfusion_openpcdet", "height_code", "z + dz/2"),
    ("detection", "transfusion_openpcdet", "code_weights", [1.0] * 10),
    ("detection", "transfusion_openpcdet", "min_radius", 6),
    ("detection", "transfusion_openpcdet", "score_threshold", 0.08),
    ("detection", "transfusion_openpcdet", "post_center_range", [-10, -10, -10, 10, 10, 10]),
    ("detection", "transfusion_openpcdet", "cost_weights", dict(cls=0.15, reg=-0.25, iou=0.25)),
    ("detection", "transfusion_dsvt", "local_mode", "clamped"),
    ("detection", "transfusion_dsvt", "height_code", "z"),
    ("detection", "transfusion_dsvt", "variant", "scatterformer"),
    ("detection", "transfusion_scatterformer", "variant", "dsvt"),
    ("detection", "transfusion_scatterformer", "local_radius", 4),
    ("detection", "transfusion_scatterformer", "iou_rectifier", None),
    ("dsvt", "bev_res_nuscenes_style", "bn_eps", 0.1),
    ("dsvt", "bev_res_nuscenes_style", "upsample_strides", [1, 2, 4]),
    ("dsvt", "bev_res_nuscenes_style", "type", "cascade"),
]


def find(system: str, name: str):
    return next(case for case in read_cases(GOLDEN / system) if case.name == name)


@pytest.mark.parametrize(("system", "name", "key", "value"), CHANGES)
def test_a_changed_setting_is_noticed(system: str, name: str, key: str, value: object):
    case = find(system, name)
    changed = replace(case, config={**case.config, key: value})
    assert changed.config[key] != case.config.get(key)
    assert not run_case(changed, torch.device("cpu")).passed


def test_lists_of_tensors_are_compared_in_order(tmp_path):
    case = find("dsvt", "state_dicts")
    models = case.document["models"]
    name = "waymo_pillar"
    items = list(models[name].items())
    items[5], items[6] = items[6], items[5]
    config = {**case.config, "models": {name: len(items)}}
    for tensors, passes in ((dict(models[name]), True), (dict(items), False)):
        changed = replace(case, config=config)
        changed.__dict__["document"] = {"models": {name: tensors}}
        assert run_case(changed, torch.device("cpu")).passed == passes
