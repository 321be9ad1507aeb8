"""Replays the residual BEV backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official
from perception3d.models.necks.bev import BevBackbone
from perception3d.parity.case import Case, CaseError
from perception3d.parity.replay import Outputs, replay_module, set_norms

_TYPES = ("residual",)


def replay_bev_backbone(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind bev_backbone: the 2-D network alone, on a dense map."""
    if case.config["type"] not in _TYPES:
        raise CaseError(f"type must be one of {_TYPES}, got {case.config['type']!r}")

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        backbone = build_bev_backbone(case.config)
        report = load_official(backbone, case.parameters(), "dsvt", part="backbone_2d")
        return backbone, dict(report.matched)

    def forward(backbone: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(backbone, BevBackbone)
        features = backbone.refine(inputs["features"])
        return Outputs(features, {"features": features})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def build_bev_backbone(config: Mapping[str, Any]) -> BevBackbone:
    """Build the BEV backbone that a config describes, with initial weights."""
    backbone = BevBackbone(
        config["input_channels"],
        config["layer_nums"],
        config["layer_strides"],
        config["num_filters"],
        config["upsample_strides"],
        config["num_upsample_filters"],
    )
    set_norms(backbone, eps=config["bn_eps"], momentum=config["bn_momentum"])
    return backbone
