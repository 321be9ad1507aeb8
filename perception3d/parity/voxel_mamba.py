"""Replays Voxel Mamba: one state space block, one dual-scale block, and the whole backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official, translate
from perception3d.layers.position import ImplicitWindowEmbedding
from perception3d.layers.state_space import StateSpaceBlock
from perception3d.models.backbones import VoxelMamba, VoxelMambaStage
from perception3d.models.backbones.voxel_mamba import DualScaleBlock
from perception3d.models.backbones.voxel_mamba_stage import curve_specs
from perception3d.parity.case import Case, CaseError
from perception3d.parity.replay import Outputs, replay_module, set_norms
from perception3d.structures import CurveOrder, CurveSpec, SparseVoxels

# Parts on their own go by the names they would have in the first block of a backbone.
_OFFICIAL_BLOCK, _OUR_BLOCK = "backbone_3d.block_list.0.", "backbone.blocks.0."
_OFFICIAL_SCAN = f"{_OFFICIAL_BLOCK}mamba_encoder_list.0."
_OUR_SCAN = f"{_OUR_BLOCK}coarse_scan."


def replay_mamba_block(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind mamba_block: the sequences of a batch as one call, in an order of their own."""
    config = case.config
    if not config["rms_norm"] or config["ssm_cfg"] is not None:
        raise CaseError("a state space block has an RMSNorm and no ssm_cfg")
    batch, length = config["batch"], config["length"]
    rows = batch * length
    order = torch.arange(rows, device=device)
    offsets = torch.arange(batch + 1, device=device) * length
    curve = CurveOrder(order, offsets, CurveSpec(1))

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        block = StateSpaceBlock(
            config["d_model"],
            states=config["d_state"],
            taps=config["d_conv"],
            expand=config["expand"],
            step_rank=config["dt_rank"],
            norm_eps=config["rms_eps"],
        )
        return block, _load(block, case.parameters(), _OFFICIAL_SCAN, _OUR_SCAN)

    def forward(block: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(block, StateSpaceBlock)
        features = block(inputs["features"].flatten(0, 1), curve)
        features = features.view(batch, length, -1)
        return Outputs(features, {"features": features})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


class _BlockWithPosition(nn.Module):
    """A dual-scale block and the position embedding that it shares with others."""

    def __init__(self, block: DualScaleBlock, position: ImplicitWindowEmbedding) -> None:
        super().__init__()
        self.block, self.position = block, position

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        result: SparseVoxels = self.block(voxels, self.position)
        return result


def replay_dual_scale_block(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind dual_scale_block; rows of result and gradients are those of the input."""
    config = case.config
    coords = case.tensor("in.coords", device).int()
    shape = tuple(config["spatial_shape_zyx"])
    stage = _stage(1, config["down_stride_s1_s2"], config["down_kernel_size_s1_s2"], config)
    curves = curve_specs(stage, shape, config["hilbert_rank_s1"], config["hilbert_shift"])
    _check("hilbert_rank_s2", config["hilbert_rank_s2"], curves[1].rank)

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        block = DualScaleBlock(
            config["d_model"], stage, curves, lambda reverse: _scan(case, reverse=reverse)
        )
        position = ImplicitWindowEmbedding(config["d_model"], config["position_window"])
        module = _BlockWithPosition(block, position)
        _set_norms(case, block, position)
        weights = case.parameters()
        shared = {key: value for key, value in weights.items() if key.startswith("pos_embed.")}
        own = {key: value for key, value in weights.items() if key not in shared}
        names = _load(block, own, _OFFICIAL_BLOCK, _OUR_BLOCK)
        places = _load(position, shared, "backbone_3d.", "backbone.position.")
        return module, {
            **{official: f"block.{ours}" for official, ours in names.items()},
            **{official: f"position.{ours}" for official, ours in places.items()},
        }

    def forward(module: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        voxels = SparseVoxels(inputs["features"], coords, shape, config["batch_size"])
        features = module(voxels).features
        return Outputs(features, {"features": features})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def replay_backbone(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind backbone of the system voxel_mamba; rows are compared by coordinates."""
    coords = case.tensor("in.coords", device).int()
    width, height, depth = case.config["grid_size_xyz"]

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        backbone = build_backbone(case)
        report = load_official(backbone, case.parameters(), "voxel_mamba", part="backbone_3d")
        return backbone, dict(report.matched)

    def forward(backbone: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        assert isinstance(backbone, VoxelMamba)
        named: dict[str, Tensor] = {}
        _record_blocks(backbone, named)
        shape = (depth, height, width)
        given = SparseVoxels(inputs["features"], coords, shape, case.config["batch_size"])
        voxels = in_cell_order(backbone(given))
        named["features"] = voxels.features
        return Outputs(voxels.features, named, {"coords": voxels.coords})

    return replay_module(case, device, build=build, forward=forward, inputs=("features",))


def build_backbone(case: Case) -> VoxelMamba:
    """Build the VoxelMamba that a case describes, with initial weights."""
    config = case.config
    _check("num_stage", len(config["num_stage"]), len(config["down_stride_s1_s2"]))
    _check("extra_down", config["extra_down"], sum(config["num_stage"]) - 1)
    grid = config["grid_size_xyz"]
    _check("sparse_shape_zyx", list(config["sparse_shape_zyx"]), [grid[2] + 1, grid[1], grid[0]])
    stages = [
        _stage(blocks, strides, kernels, {"down_resolution": coarse})
        for blocks, strides, kernels, coarse in zip(
            config["num_stage"],
            config["down_stride_s1_s2"],
            config["down_kernel_size_s1_s2"],
            config["down_resolution"],
            strict=True,
        )
    ]
    rank = config["hilbert_rank_s1"][0]
    ranks = [rank - (stage.stride.bit_length() - 1) for stage in stages]
    _check("hilbert_rank_s1", config["hilbert_rank_s1"], [rank] * len(stages))
    _check("hilbert_rank_s2", config["hilbert_rank_s2"], ranks)
    seen = 2 ** (len(stages) + 2) - 1
    backbone = VoxelMamba(
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, float(grid[0]), float(grid[1]), float(grid[2])),
        stages,
        config["d_model"],
        states=config["d_state"],
        taps=config["d_conv"],
        expand=config["expand"],
        rank=rank,
        shifts=config["hilbert_shift_per_block"],
        window=config["position_window"],
        dropped_layers=max(0, grid[2] - seen),
    )
    _set_norms(case, backbone, backbone.position)
    return backbone


def in_cell_order(voxels: SparseVoxels) -> SparseVoxels:
    """Return the voxels with rows ascending by (b, z, y, x)."""
    b, z, y, x = voxels.coords.long().unbind(1)
    depth, height, width = voxels.spatial_shape
    return voxels.take((((b * depth + z) * height + y) * width + x).argsort())


def _record_blocks(backbone: VoxelMamba, named: dict[str, Tensor]) -> None:
    """Have every forward pass store the results of the blocks."""

    def keep(number: int, module: nn.Module) -> None:
        def store(_module: nn.Module, _inputs: object, output: SparseVoxels) -> None:
            ordered = in_cell_order(output)
            named[f"block{number}.features"] = ordered.features
            named[f"block{number}.coords"] = ordered.coords

        module.register_forward_hook(store)

    for number, block in enumerate(backbone.blocks):
        keep(number, block)


def _stage(
    blocks: int, strides: list[int], kernels: list[int], config: Mapping[str, object]
) -> VoxelMambaStage:
    _check("down_stride of scale 1", strides[0], 1)
    _check("down_resolution", config["down_resolution"], strides[1] > 1)
    return VoxelMambaStage(blocks, strides[1], kernels[1])


def _scan(case: Case, *, reverse: bool) -> StateSpaceBlock:
    config = case.config
    return StateSpaceBlock(
        config["d_model"],
        states=config["d_state"],
        taps=config["d_conv"],
        expand=config["expand"],
        step_rank=config["dt_rank"],
        reverse=reverse,
    )


def _set_norms(case: Case, module: nn.Module, position: ImplicitWindowEmbedding) -> None:
    config = case.config
    set_norms(
        module,
        layer_eps=config["ln_eps"],
        eps=config["bn_eps"],
        momentum=config["bn_momentum"],
    )
    set_norms(position, eps=config["pos_bn_eps"], momentum=config["pos_bn_momentum"])
    for child in module.modules():
        if isinstance(child, nn.RMSNorm):
            child.eps = config["rms_eps"]


def _load(
    module: nn.Module, weights: Mapping[str, Tensor], official: str, ours: str
) -> dict[str, str]:
    """Load a part by the names it has in a whole detector; return {official name: ours}."""
    names, state = {}, {}
    for name, value in weights.items():
        place = translate(official + name, "voxel_mamba")
        if place is None or not place.startswith(ours):
            raise CaseError(f"no place for the parameter {name} in {type(module).__name__}")
        names[name] = place.removeprefix(ours)
        state[names[name]] = value
    loaded = module.load_state_dict(state, strict=False)
    missing = [name for name in loaded.missing_keys if not name.endswith(".num_batches_tracked")]
    if missing or loaded.unexpected_keys:
        raise CaseError(f"parameters missing {missing}, unexpected {loaded.unexpected_keys}")
    return names


def _check(name: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise CaseError(f"{name} must be {wanted}, as this backbone is built, got {got}")
