"""Replays ScatterFormer: its layers, its pillar pooling, and the whole backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official, translate
from perception3d.layers.pillar_pooling import PillarPooling
from perception3d.models.backbones.scatterformer import (
    ScatterFormer,
    ScatterFormerLayer,
    ScatterFormerStage,
)
from perception3d.parity.case import Case, CaseError
from perception3d.parity.replay import Outputs, replay_module, set_norms
from perception3d.structures import SparseVoxels

# Layers on their own go by the names they would have in the first stage of a backbone.
_OFFICIAL_STAGE, _OUR_STAGE = "backbone_3d.stage1.0.", "backbone.stages.0."
_OFFICIAL_POOLING, _OUR_POOLING = "backbone_3d.app.", "backbone.pooling."


def replay_layer(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind layer: layers that share one partition; rows come out in window order."""
    config = case.config
    coords = case.tensor("in.coords", device).int()
    dim, window = config["dim"], config["win_size"]

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        layers = [
            ScatterFormerLayer(dim, config["heads"], config["conv_size"], config["ffn_ratio"] * dim)
            for _ in range(config["num_layers"])
        ]
        stage = ScatterFormerStage(layers, (window, window), dim, down=None)
        _set_epsilon(case, stage)
        return stage, _load(case, stage, _OFFICIAL_STAGE, _OUR_STAGE, ignored="norm.")

    def forward(stage: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(stage, ScatterFormerStage)
        voxels = SparseVoxels(
            inputs["features"], coords, tuple(config["spatial_shape_zyx"]), config["batch_size"]
        )
        mixed = stage.mix(voxels)
        common = {"coords": mixed.coords, "perm": voxels.windows(stage.spec(voxels)).order}
        return Outputs(mixed.features, {"features": mixed.features}, common)

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def replay_pillar_pooling(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind pillar_pooling."""
    config = case.config
    coords = case.tensor("in.coords", device).int()

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        pooling = PillarPooling(config["dim"], config["pillar_size"], config["heads"])
        set_norms(pooling, layer_eps=config["ln_eps"])
        return pooling, _load(case, pooling, _OFFICIAL_POOLING, _OUR_POOLING)

    def forward(pooling: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        shape = tuple(config["spatial_shape_zyx"])
        pooled = pooling(SparseVoxels(inputs["features"], coords, shape, config["batch_size"]))
        return Outputs(pooled.features, {"features": pooled.features}, {"coords": pooled.coords})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def replay_backbone(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind backbone of the system scatterformer."""
    config = case.config
    coords = case.tensor("in.coords", device).int()
    width, height, depth = config["grid_size_xyz"]

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        backbone = build_backbone(case)
        report = load_official(backbone, case.parameters(), "scatterformer", part="backbone_3d")
        return backbone, dict(report.matched)

    def forward(backbone: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(backbone, ScatterFormer)
        voxels = SparseVoxels(
            inputs["features"], coords, (depth, height, width), config["batch_size"]
        )
        stem = backbone.stem(voxels)
        first, second = backbone.stages
        assert isinstance(first, ScatterFormerStage)
        mixed = first.mix(stem)
        last = second(first.finish(mixed))
        pillars = backbone.pooling(last)
        parts = {"stem": stem, "s1": mixed, "s2": last}
        named = {
            "features": pillars.features,
            **{f"{name}_mean_abs": part.features.abs().mean(0) for name, part in parts.items()},
        }
        common = {f"{name}.coords": part.coords for name, part in parts.items()}
        return Outputs(pillars.features, named, {"coords": pillars.coords, **common})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def build_backbone(case: Case) -> ScatterFormer:
    """Build the ScatterFormer that a case describes, with initial weights."""
    config = case.config
    backbone = ScatterFormer(
        tuple(config["grid_size_xyz"]),
        config["input_channels"],
        config["dim"],
        config["win_size"],
        config["heads"],
        conv_size=config["conv_size"],
        layers=tuple(config["layers_per_stage"]),
        feedforward=config["ffn_ratio"] * config["dim"],
        pooling_heads=config["pooling_heads"],
    )
    if backbone.pooling.position.shape[0] != config["pillar_size"]:
        raise CaseError(f"pillar_size {config['pillar_size']} does not follow from the grid")
    _set_epsilon(case, backbone)
    return backbone


def _set_epsilon(case: Case, module: nn.Module) -> None:
    """Give norms and attention the constants that the case states."""
    config = case.config
    set_norms(
        module,
        layer_eps=config.get("ln_eps"),
        eps=config["bn_eps"],
        momentum=config["bn_momentum"],
    )
    for child in module.modules():
        if isinstance(child, ScatterFormerLayer):
            child.attention.epsilon = config["eps"]


def _load(
    case: Case, module: nn.Module, official: str, ours: str, *, ignored: str = "\0"
) -> dict[str, str]:
    """Load the parameters of a part; return {official name: ours}, both relative to the part."""
    names: dict[str, str] = {}
    for name in case.parameters():
        place = translate(official + name, "scatterformer")
        if place is None:
            raise CaseError(f"no place for the parameter {name}")
        names[name] = place.removeprefix(ours)
    values = {names[name]: value for name, value in case.parameters().items()}
    missing, unexpected = module.load_state_dict(values, strict=False)
    left = [
        name
        for name in missing
        if not name.startswith(ignored) and not name.endswith("num_batches_tracked")
    ]
    if left or unexpected:
        raise CaseError(f"parameters do not fit: missing {left}, unexpected {unexpected}")
    return names
