"""Replays CenterHead: network, targets, losses and decoding."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official
from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import CenterHeadOutput, CenterLayers, TaskOutput
from perception3d.models.heads.center_decode import CenterDecoder
from perception3d.models.heads.center_head import CenterHead
from perception3d.models.heads.center_loss import CenterLoss
from perception3d.models.heads.center_targets import GaussianTargets, TaskTargets
from perception3d.parity.case import Array, Case, CaseError
from perception3d.parity.compare import recorded_keys
from perception3d.parity.heads import official_names, read_targets
from perception3d.parity.replay import Outputs, replay_module
from perception3d.structures import Detections

_BOX_CODE = ("dx_cell", "dy_cell", "z", "log dx", "log dy", "log dz", "cos", "sin")
_LOSS_NAMES = {"heatmap": "hm", "box": "loc", "iou": "iou", "diou": "iou_reg"}
_SCOPES = ("over all classes", "per class, then over the classes of the head")
_BRANCHES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2, "iou": 1}


def replay_head_forward(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind head_forward for a CenterHead; only some heads are stored, with their weights."""
    config = case.config
    if config["head"] != "center":
        raise CaseError(f"head must be center, got {config['head']!r}")
    height, width = case.array("in.features").shape[2:]
    stored = [int(number) for number in config["stored_heads"]]

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        head = CenterHead(
            config["input_channels"],
            config["class_names"],
            BevGrid((1, 1), (0, 0, 0, width, height, 1)),
            config["heads"],
            layers=_layers(config),
        )
        # Heads that are not stored keep their initial weights, and nothing is read from them.
        report = load_official(head, case.parameters(), "dsvt", part="dense_head", strict=False)
        if report.unexpected:
            raise CaseError(f"parameters without a place: {report.unexpected[:5]}")
        used = ("shared.", *(f"branches.{number}." for number in stored))
        lacking = [
            name
            for name in report.missing
            if name.startswith(used) and not name.endswith("num_batches_tracked")
        ]
        if lacking:
            raise CaseError(f"parameters that the case lacks: {lacking[:5]}")
        return head, dict(report.matched)

    def forward(head: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        tasks = head(inputs["features"]).tasks
        named = {
            f"head{number}.{branch}": getattr(tasks[number], branch)
            for number in stored
            for branch in config["branches"]
        }
        return Outputs(inputs["features"], named)

    results = replay_module(case, device, build=build, forward=forward, inputs=("features",))
    head, _ = build()
    results["out.state_dict_names"] = official_names(case, head)
    return results


def _layers(config: Mapping[str, Any]) -> CenterLayers:
    branches = config["branches"]
    odd = [name for name in branches if name != "hm" and _BRANCHES.get(name) != branches[name]]
    if odd or "hm" not in branches:
        raise CaseError(f"branches must be hm and some of {_BRANCHES}, got {branches}")
    return CenterLayers(
        velocity="vel" in branches,
        iou="iou" in branches,
        shared_channels=config["shared_channels"],
        num_convs=config["num_conv"],
        kernel_size=config["kernel_size"],
        bias_before_norm=config["bias_before_norm"],
        norm_eps=config["bn_eps"],
    )


def replay_head_targets(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind head_targets of a CenterHead."""
    velocity = case.array("in.gt_boxes").shape[2] == 10
    code = (*_BOX_CODE, "vx", "vy") if velocity else _BOX_CODE
    if case.config["code"].split(",") != list(code):
        raise CaseError(f"code must be {','.join(code)}, got {case.config['code']}")
    head = build_head(case, velocity=velocity)
    targets = read_targets(case, device)
    assigned = head.target_maker.assign(targets, head.tasks, head.grid, velocity=velocity)
    return target_results(assigned, velocity=velocity)


def replay_head_loss_decode(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind head_loss_decode of a CenterHead."""
    config = case.config
    velocity = "vel" in config["branches"]
    head = build_head(case, velocity=velocity)
    leaves = {
        key: case.tensor(key, device).requires_grad_()
        for key in case.arrays
        if key.startswith("in.head")
    }
    output = CenterHeadOutput(
        tuple(
            TaskOutput(
                **{branch: leaves[f"in.head{number}.{branch}"] for branch in config["branches"]}
            )
            for number in range(len(config["heads"]))
        )
    )
    assigned = head.assign(output, read_targets(case, device))
    results = target_results(assigned, velocity=velocity)
    losses = head.task_losses(output, assigned)
    for number, parts in enumerate(losses):
        for name, value in parts.items():
            results[f"out.head{number}.{_LOSS_NAMES[name]}_loss"] = value
    total = torch.stack([value for parts in losses for value in parts.values()]).sum()
    results["out.loss"] = total
    (total * case.tensor("in.grad_out", device)).backward()  # type: ignore[no-untyped-call]  # torch has no types here
    for key, leaf in leaves.items():
        results[f"grad.{key}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    turn = math.radians(config.get("decode_footprint_turned_deg") or 0.0)
    expected = expected_head_loss_decode(case)
    for name, angle in (("decode", turn), ("decode_true_nms", 0.0)):
        with torch.no_grad():
            frames = build_decoder(config, angle).decode(output, head.tasks, head.grid)
        for frame, found in enumerate(frames):
            results.update(_match(f"out.{name}{frame}", found, expected))
    return results


def expected_head_loss_decode(case: Case) -> dict[str, Array]:
    """Return the reference with detections by head, then by score.

    The class-wise NMS of the reference lists a head's classes one after the other.
    """
    expected = {key: case.arrays[key] for key in recorded_keys(case)}
    heads = [set(names) for names in case.config["heads"]]
    classes = case.config["class_names"]
    for key in list(expected):
        prefix, _, column = key.rpartition(".")
        if column != "pred_labels":
            continue
        head = [
            next(i for i, names in enumerate(heads) if classes[k - 1] in names)
            for k in expected[key]
        ]
        order = np.lexsort((-expected[f"{prefix}.pred_scores"], np.array(head, dtype=int)))
        for part in ("pred_boxes", "pred_scores", "pred_labels"):
            expected[f"{prefix}.{part}"] = expected[f"{prefix}.{part}"][order]
    return expected


def _match(prefix: str, found: Detections, expected: Mapping[str, Array]) -> dict[str, object]:
    """Return detections under their keys; rows of equal scores in the order of the reference.

    Rows are exchanged with any other, but as both sides are sorted, an exchange between unequal
    scores still shows up as a wrong score.
    """
    boxes = found.boxes.tensor.cpu().numpy()
    scores = found.scores.cpu().numpy()
    labels = found.labels.cpu().numpy() + 1
    if f"{prefix}.pred_boxes" in expected:
        wanted = expected[f"{prefix}.pred_boxes"]
        boxes = boxes[:, : wanted.shape[1]]
        if wanted.shape == boxes.shape:
            cost = np.abs(boxes[None] - wanted[:, None]).sum(axis=2)
            cost += 1e3 * (labels[None] != expected[f"{prefix}.pred_labels"][:, None])
            cost += np.abs(scores[None] - expected[f"{prefix}.pred_scores"][:, None])
            from scipy.optimize import linear_sum_assignment  # operators need no SciPy

            _, order = linear_sum_assignment(cost)
            boxes, scores, labels = boxes[order], scores[order], labels[order]
    return {
        f"{prefix}.pred_boxes": boxes,
        f"{prefix}.pred_scores": scores,
        f"{prefix}.pred_labels": labels,
    }


def build_head(case: Case, *, velocity: bool) -> CenterHead:
    """Build the head of a case; its convolutions are not used, so they are small."""
    config = case.config
    x0, y0, x1, y1 = config["point_cloud_range_xy"]
    grid = BevGrid(config["voxel_size_xy"], (x0, y0, -1, x1, y1, 1), config["feature_map_stride"])
    height, width = config["feature_map_size_yx"]
    if grid.size != (width, height):
        raise CaseError(f"map must be (W, H) = {(width, height)}, got {grid.size}")
    loss = CenterLoss()
    if "loc_weight" in config:
        loss = CenterLoss(
            heatmap_weight=config["cls_weight"],
            box_weight=config["loc_weight"],
            code_weights=config["code_weights"],
            iou_weight=config.get("iou_weight", 1.0),
            diou=bool(config.get("iou_reg_loss")),
        )
    return CenterHead(
        1,
        config["class_names"],
        grid,
        config["heads"],
        layers=CenterLayers(velocity=velocity, shared_channels=1),
        targets=GaussianTargets(
            config["gaussian_overlap"], config["min_radius"], config["max_objs"]
        ),
        loss=loss,
    )


def build_decoder(config: Mapping[str, Any], footprint_turn: float) -> CenterDecoder:
    """Build the decoder of a case, with footprints turned by an angle, rad."""
    if config["topk_scope"] not in _SCOPES:
        raise CaseError(f"topk_scope must be one of {_SCOPES}, got {config['topk_scope']!r}")
    threshold = config["nms_threshold"]
    class_wise = config["nms"].startswith("class-wise")
    if not class_wise and not config["nms"].startswith("class-agnostic"):
        raise CaseError(f"nms must be class-wise or class-agnostic, got {config['nms']!r}")
    if class_wise and not isinstance(threshold, list):
        threshold = [threshold] * len(config["class_names"])
    return CenterDecoder(
        max_objects=config["topk"],
        score_threshold=config["score_threshold"],
        center_range=config["post_center_range"],
        iou_rectifier=config["iou_rectifier"],
        iou_threshold=threshold,
        pre_max=config["nms_pre"],
        post_max=config["nms_post"],
        footprint_turn=footprint_turn,
    )


def target_results(assigned: list[TaskTargets], *, velocity: bool) -> dict[str, object]:
    """Return targets by key, slots beyond those of the fullest frame cut off."""
    results: dict[str, object] = {}
    for number, task in enumerate(assigned):
        # A slot is in use if any size is set; only boxes have one.
        used = task.boxes.ne(0).any(dim=2).sum(dim=1)
        slots = int(used.max()) if used.numel() else 0
        columns = task.boxes if velocity else task.boxes[:, :, :7]
        local = (task.channels + 1) * task.boxes.ne(0).any(dim=2)
        source = torch.cat([columns, local[..., None].to(columns.dtype)], dim=2)
        results |= {
            f"out.head{number}.heatmap": task.heatmap,
            f"out.head{number}.target_boxes": task.codes[:, :slots],
            f"out.head{number}.inds": task.cells[:, :slots],
            f"out.head{number}.mask": task.mask[:, :slots],
            f"out.head{number}.target_boxes_src": source[:, :slots],
        }
    return results
