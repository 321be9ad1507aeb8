"""Replays DSVT: one encoder layer, and the whole backbone with its intermediate results."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official, translate
from perception3d.layers.attention import SetEncoderLayer
from perception3d.models.backbones import DSVT
from perception3d.models.backbones.dsvt import DSVTBlock, DSVTStageModule
from perception3d.models.necks.bev import scatter_to_bev
from perception3d.parity.bev import build_bev_backbone
from perception3d.parity.case import Case, CaseError
from perception3d.parity.partition import dsvt_stages
from perception3d.parity.replay import Outputs, replay_module, set_norms
from perception3d.structures import SparseVoxels, TableRows

# A layer on its own goes by the names it would have as the first one of a backbone.
_OFFICIAL_LAYER = "backbone_3d.stage_0.0.encoder_list.0."
_OUR_LAYER = "backbone.stages.0.blocks.0.layers.0."


def replay_encoder_layer(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind encoder_layer."""
    config = case.config
    _check_dropout(case)
    voxel_of_slot = case.tensor("in.set_voxel_inds", device).long()
    repeated = case.tensor("in.set_voxel_mask", device).bool()
    order = voxel_of_slot[~repeated]
    offsets = torch.cat([order.new_zeros(1), (~repeated).sum(1).cumsum(0)])

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        layer = SetEncoderLayer(
            config["d_model"], config["nhead"], config["dim_feedforward"], config["activation"]
        )
        set_norms(layer, layer_eps=config["ln_eps"])
        names = {official: _layer_name(official) for official in case.parameters()}
        layer.load_state_dict({names[key]: value for key, value in case.parameters().items()})
        return layer, names

    def forward(layer: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(layer, SetEncoderLayer)
        arguments = inputs["features"], inputs["pos"], order, offsets
        features = layer(*arguments)
        # There is one write-back here, so the variant for export is the same result.
        named = {
            "features": features,
            "features_export": features,
            "set_attention": layer.inner(*arguments),
        }
        return Outputs(features, named)

    return replay_module(case, device, build=build, forward=forward, inputs=("features", "pos"))


def replay_backbone(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind backbone of the system dsvt."""
    coords = case.tensor("in.coords", device).int()
    width, height, depth = case.config["sparse_shape_xyz"]

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        backbone = build_backbone(case)
        own = {
            name: value
            for name, value in case.parameters().items()
            if not name.startswith("backbone_2d.")
        }
        report = load_official(backbone, own, "dsvt", part="backbone_3d")
        return backbone, dict(report.matched)

    def forward(backbone: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(backbone, DSVT)
        named: dict[str, Tensor] = {}
        _record_stages(backbone, named)
        shape = (depth, height, width)
        voxels = backbone(
            SparseVoxels(inputs["features"], coords, shape, case.config["batch_size"])
        )
        named["features"] = voxels.features
        if case.config.get("bev_backbone"):
            named["spatial_features"] = scatter_to_bev(voxels)
            neck = _build_neck(case).to(device).train(backbone.training)
            named["spatial_features_2d"] = neck(voxels)
        return Outputs(voxels.features, named, {"coords": voxels.coords})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def build_backbone(case: Case) -> DSVT:
    """Build the DSVT that a case describes, with initial weights."""
    config = case.config
    _check_dropout(case)
    backbone = DSVT(
        tuple(config["sparse_shape_xyz"]),
        dsvt_stages(case),
        config["d_model"],
        config["nhead"],
        config["dim_feedforward"],
        hybrid_factor=tuple(config["hybrid_factor_xyz"]),
        position=config["position_embedding"],
        normalize_pos=config["normalize_pos"],
        activation=config["activation"],
        reduction=config["reduction_type"],
        pooling_heads=config["reduction_heads"],
        flat_output=False,
    )
    set_norms(
        backbone,
        layer_eps=config["ln_eps"],
        eps=config["pos_bn_eps"],
        momentum=config["pos_bn_momentum"],
    )
    return backbone


def _build_neck(case: Case) -> nn.Module:
    """Build the BEV backbone that follows, with the recorded weights."""
    neck = build_bev_backbone(case.config["bev_backbone"])
    load_official(neck, case.parameters("backbone_2d."), "dsvt", part="backbone_2d")
    return neck


def _record_stages(backbone: DSVT, named: dict[str, Tensor]) -> None:
    """Have every forward pass store position embeddings, block results and poolings."""

    def keep(key: str, module: nn.Module) -> None:
        def store(
            _module: nn.Module, _inputs: object, output: Tensor | TableRows | SparseVoxels
        ) -> None:
            if isinstance(output, TableRows):
                named[key] = output.expand()
            else:
                named[key] = output.features if isinstance(output, SparseVoxels) else output

        module.register_forward_hook(store)

    for number, stage in enumerate(backbone.stages):
        assert isinstance(stage, DSVTStageModule)
        for place, block in enumerate(stage.blocks):
            assert isinstance(block, DSVTBlock)
            keep(f"stage{number}.block{place}", block)
            for layer, embedding in enumerate(block.positions):
                keep(f"pos_embed.stage{number}.block{place}.shift{layer}", embedding)
        if stage.pooling is not None:
            keep(f"stage{number}.reduction", stage.pooling)


def _layer_name(official: str) -> str:
    ours = translate(_OFFICIAL_LAYER + official, "dsvt")
    if ours is None:
        raise CaseError(f"no place for the parameter {official} in an encoder layer")
    return ours.removeprefix(_OUR_LAYER)


def _check_dropout(case: Case) -> None:
    if case.config.get("dropout", 0.0) != 0.0:
        raise CaseError(
            f"dropout must be 0, a case cannot record random numbers, got {case.config['dropout']}"
        )
