"""Replays TransFusionHead: network, assignment, losses, decoding, and the gradients of it all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception3d.checkpoint import load_official
from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.transfusion_branches import TransFusionLayers, TransFusionOutput
from perception3d.models.heads.transfusion_decode import TransFusionDecoder
from perception3d.models.heads.transfusion_head import TransFusionHead
from perception3d.models.heads.transfusion_loss import TransFusionLoss
from perception3d.models.heads.transfusion_queries import QueryRule
from perception3d.models.heads.transfusion_targets import HungarianTargets, QueryTargets, bottom_iou
from perception3d.parity.case import Array, Case, CaseError
from perception3d.parity.compare import recorded_keys
from perception3d.parity.heads import official_names, read_targets
from perception3d.parity.replay import set_norms
from perception3d.structures import Detections

_BORDERS = {"clamped": "clamp", "wrap over rows": "wrap", None: "clamp"}
_HEIGHTS = {"z": "center", "z + dz/2": "top"}
_LOSS_NAMES = {
    "heatmap": "heatmap",
    "class": "cls",
    "box": "bbox",
    "iou": "iou",
    "diou": "iou_reg",
}
_ROUNDING = 1e-5
_SAME_BOX = 1e-3
# What the network always is.
_FIXED = {"activation": "relu", "nms_kernel": 3}


def replay_transfusion_head(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind transfusion_head; norms use their running statistics."""
    config = case.config
    head = build_head(config).eval()
    parameters = {
        name: value
        for name, value in case.parameters().items()
        if config["iou_branch"] or not name.startswith("prediction_head.iou.")
    }
    report = load_official(head, parameters, "dsvt", part="dense_head")
    head.to(device)
    features = case.tensor("in.features", device).requires_grad_()
    output = head(features)
    assigned = _settle_ties(head, output, head.assign(output, read_targets(case, device)), case)
    losses = head.loss_maker.compute(output, _settle_velocities(output, assigned), head.code)
    total = torch.stack(list(losses.values())).sum()
    (total * case.tensor("in.grad_out", device)).backward()  # type: ignore[no-untyped-call]  # torch has no types here
    weights = dict(head.named_parameters())
    matched = assigned.overlaps.sum(dim=1) / assigned.mask.sum(dim=1).clamp(min=1)
    return {
        **_forward_results(output, transposed=head.layers.transposed),
        **_target_results(assigned, transposed=head.layers.transposed),
        **{f"out.eval.loss_{_LOSS_NAMES[name]}": value for name, value in losses.items()},
        "out.eval.loss": total,
        "out.eval.loss_trans": total,
        "out.eval.target.matched_ious": matched.mean(),
        "out.eval.loss_matched_ious": matched.mean(),
        **_decode_results(head, output),
        "grad.eval.in.features": features.grad,
        **{
            f"grad.eval.param.{official}": weights[ours].grad
            for official, ours in report.matched
            if ours in weights
        },
        "out.state_dict_names": official_names(case, head),
    }


def _settle_velocities(output: TransFusionOutput, assigned: QueryTargets) -> QueryTargets:
    """Return targets whose velocities are the predicted ones where they differ by rounding alone.

    Some ground truths of the cases carry velocities copied from the reference's predictions.  The
    reference has no gradient there; elsewhere the last bit would choose the sign of a whole one.
    """
    codes, predicted = assigned.codes, output.codes.detach()
    near = (codes - predicted).abs() < _ROUNDING
    near[..., :8] = False
    return replace(assigned, codes=torch.where(near, predicted, codes))


@torch.no_grad()
def _settle_ties(
    head: TransFusionHead, output: TransFusionOutput, assigned: QueryTargets, case: Case
) -> QueryTargets:
    """Return the recorded assignment of the same boxes if it costs what ours does.

    Two boxes on the same side of two queries have the same sum of L1 distances either way round:
    rounding alone decides between them.
    """
    recorded = case.tensor("out.eval.target.bbox_targets", assigned.codes.device)
    mask = assigned.mask
    if recorded.shape != assigned.codes.shape:
        return assigned
    columns = [assigned.labels, assigned.codes, assigned.boxes, assigned.overlaps]
    settled = [column.clone() for column in columns]
    predicted, maker = head.code.decode(output.codes), head.target_maker
    for frame in range(output.batch_size):
        rows = mask[frame].nonzero().squeeze(1)
        found, wanted = assigned.codes[frame, rows], recorded[frame, rows]
        distance, source = torch.cdist(wanted, found).min(dim=1)
        if not rows.numel() or distance.max() > _SAME_BOX or len(set(source.tolist())) < len(rows):
            continue
        boxes, labels = assigned.boxes[frame, rows], assigned.labels[frame, rows]
        overlaps = bottom_iou(predicted[frame, rows], boxes)
        cost = maker.costs(
            predicted[frame, rows],
            output.heatmap[frame, :, rows],
            boxes,
            labels,
            head.code,
            overlaps,
        )
        theirs = cost.gather(1, source[:, None])[:, 0]
        if (theirs.sum() - cost.trace()).abs() > _ROUNDING:
            continue
        for column, before in zip(settled, columns, strict=True):
            column[frame, rows] = before[frame, rows[source]]
        settled[3][frame, rows] = overlaps.gather(1, source[:, None])[:, 0]
    labels, codes, boxes, overlaps = settled
    return replace(assigned, labels=labels, codes=codes, boxes=boxes, overlaps=overlaps)


def expected_transfusion_head(case: Case) -> dict[str, Array]:
    """Return the reference with detections by score; it leaves them in the order of the queries."""
    expected = {key: case.arrays[key] for key in recorded_keys(case)}
    for key in list(expected):
        prefix, _, column = key.rpartition(".")
        if column == "pred_scores":
            order = np.argsort(-expected[key], kind="stable")
            for part in ("pred_boxes", "pred_scores", "pred_labels"):
                expected[f"{prefix}.{part}"] = expected[f"{prefix}.{part}"][order]
    return expected


def build_head(config: Mapping[str, Any]) -> TransFusionHead:
    """Build the head of a case."""
    for name, value in _FIXED.items():
        if config[name] != value:
            raise CaseError(f"{name} must be {value!r}, got {config[name]!r}")
    if config["local_mode"] not in _BORDERS or config["height_code"] not in _HEIGHTS:
        raise CaseError(
            f"local_mode must be one of {list(_BORDERS)} and height_code one of {list(_HEIGHTS)}, "
            f"got {config['local_mode']!r} and {config['height_code']!r}"
        )
    x0, y0, x1, y1 = config["point_cloud_range_xy"]
    grid = BevGrid(config["voxel_size_xy"], (x0, y0, -1, x1, y1, 1), config["feature_map_stride"])
    height, width = config["feature_map_size_yx"]
    if grid.size != (width, height):
        raise CaseError(f"map must be (W, H) = {(width, height)}, got {grid.size}")
    classes = config["class_names"]
    costs, weights, nms = config["cost_weights"], config["loss_weights"], config["nms"]
    head = TransFusionHead(
        config["input_channels"],
        classes,
        grid,
        QueryRule(
            config["num_proposals"], [classes[number] for number in config["nms_kernel_1_classes"]]
        ),
        layers=TransFusionLayers(
            channels=config["hidden"],
            heads=config["num_heads"],
            feedforward=config["ffn"],
            dropout=config["dropout"],
            iou=config["iou_branch"],
            bias_before_norm=True,
            transposed=config["transpose_input"],
            local_radius=config["local_radius"],
            local_border=_BORDERS[config["local_mode"]],
            height=_HEIGHTS[config["height_code"]],
        ),
        targets=HungarianTargets(
            costs["cls"],
            costs["reg"],
            costs["iou"],
            config["gaussian_overlap"],
            config["min_radius"],
            unknown_velocity="zero",
        ),
        loss=TransFusionLoss(
            heatmap_weight=weights["heatmap"],
            class_weight=weights["cls"],
            box_weight=weights["bbox"],
            code_weights=config["code_weights"],
            iou_weight=weights["iou"] or 0.0,
            iou_of_assignment=config["variant"] == "dsvt",
            diou_weight=weights["iou_reg"],
        ),
        decoder=TransFusionDecoder(
            config["score_threshold"],
            config["post_center_range"],
            config["iou_rectifier"],
            {name: nms["iou_threshold"] for name in nms["classes"]} if nms else {},
            nms["pre"] if nms else None,
            nms["post"] if nms else None,
        ),
    )
    set_norms(head, eps=config["bn_eps"])
    return head


def _forward_results(output: TransFusionOutput, *, transposed: bool) -> dict[str, object]:
    named = {name: getattr(output, name) for name in ("center", "height", "dim", "rot", "vel")}
    dense = output.dense_heatmap
    named |= {
        "heatmap": output.heatmap,
        "iou": output.iou,
        "dense_heatmap": dense.transpose(2, 3) if transposed else dense,
        "query_heatmap_score": output.query_scores,
        "query_labels": output.query_labels,
    }
    return {f"out.eval.{name}": value for name, value in named.items() if value is not None}


def _target_results(assigned: QueryTargets, *, transposed: bool) -> dict[str, object]:
    mask, heatmap = assigned.mask, assigned.heatmap
    return {
        "out.eval.target.labels": assigned.labels,
        "out.eval.target.label_weights": torch.ones_like(assigned.labels),
        "out.eval.target.bbox_targets": assigned.codes,
        "out.eval.target.bbox_weights": mask[..., None].float().expand_as(assigned.codes),
        "out.eval.target.num_pos": mask.sum().double(),
        "out.eval.target.heatmap": heatmap.transpose(2, 3) if transposed else heatmap,
    }


@torch.no_grad()
def _decode_results(head: TransFusionHead, output: TransFusionOutput) -> dict[str, object]:
    counted = head.decoder.counted(head.code.decode(output.codes), head.decoder.scores(output))
    results: dict[str, object] = {}
    for frame, found in enumerate(head.decode(output)):
        results |= {f"out.eval.decode{frame}.cmask": counted[frame], **_columns(frame, found)}
    return results


def _columns(frame: int, found: Detections) -> dict[str, Tensor]:
    return {
        f"out.eval.decode{frame}.pred_boxes": found.boxes.tensor,
        f"out.eval.decode{frame}.pred_scores": found.scores,
        f"out.eval.decode{frame}.pred_labels": found.labels + 1,
    }
