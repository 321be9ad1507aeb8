"""Official parameter names and ours, as tables of rewriting rules per system."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Children of the official detectors (OpenPCDet's layout) and of our Detector.
OFFICIAL_PARTS = {
    "vfe": "encoder",
    "backbone_3d": "backbone",
    "backbone_2d": "neck",
    "dense_head": "head",
}


@dataclass(frozen=True)
class NameRule:
    """One rewriting rule.

    Attributes:
        pattern: regular expression that has to match a whole official name.
        replacement: our name, with \\1, \\2, ... for the groups; None if the tensor has no place
            here and is left out knowingly.
        transform: applied to the official tensor before it is copied, None for as it is.
        repeated: official files hold the tensor once more under this name.
    """

    pattern: str
    replacement: str | None
    transform: Callable[[Tensor], Tensor] | None = None
    repeated: bool = False


_DYNAMIC_ENCODER = (NameRule(r"vfe\.pfn_layers\.(\d+)\.(.+)", r"encoder.layers.\1.\2"),)

_POSITION = (
    r"backbone_3d\.input_layer\.posembed_layers\.(\d+)\.(\d+)\.(\d+)\.position_embedding_head"
)
_LAYER = r"backbone_3d\.stage_(\d+)\.(\d+)\.encoder_list\.(\d+)"
_OUR_LAYER = r"backbone.stages.\1.blocks.\2.layers.\3"
_POOLING = r"backbone_3d\.stage_(\d+)_reduction"

# Haiyang-W/DSVT: pcdet/models/backbones_3d/dsvt.py, dsvt_input_layer.py
_DSVT_BACKBONE = (
    NameRule(rf"{_POSITION}\.0\.(.+)", r"backbone.stages.\1.blocks.\2.positions.\3.linear1.\4"),
    NameRule(rf"{_POSITION}\.1\.(.+)", r"backbone.stages.\1.blocks.\2.positions.\3.norm.\4"),
    NameRule(rf"{_POSITION}\.3\.(.+)", r"backbone.stages.\1.blocks.\2.positions.\3.linear2.\4"),
    NameRule(
        rf"{_LAYER}\.win_attn\.self_attn\.in_proj_(weight|bias)",
        rf"{_OUR_LAYER}.inner.attention.qkv.\4",
    ),
    NameRule(
        rf"{_LAYER}\.win_attn\.self_attn\.out_proj\.(.+)", rf"{_OUR_LAYER}.inner.attention.out.\4"
    ),
    NameRule(
        rf"{_LAYER}\.win_attn\.(linear1|linear2|norm1|norm2)\.(.+)", rf"{_OUR_LAYER}.inner.\4.\5"
    ),
    NameRule(rf"{_LAYER}\.norm\.(.+)", rf"{_OUR_LAYER}.norm.\4"),
    NameRule(
        r"backbone_3d\.residual_norm_stage_(\d+)\.(\d+)\.(.+)",
        r"backbone.stages.\1.blocks.\2.norm.\3",
    ),
    NameRule(rf"{_POOLING}\.pos_embedding", r"backbone.stages.\1.pooling.position"),
    NameRule(
        rf"{_POOLING}\.self_attn\.in_proj_(weight|bias)", r"backbone.stages.\1.pooling.qkv.\2"
    ),
    NameRule(rf"{_POOLING}\.self_attn\.out_proj\.(.+)", r"backbone.stages.\1.pooling.out.\2"),
    NameRule(rf"{_POOLING}\.linear1\.(.+)", r"backbone.stages.\1.pooling.linear.\2"),
    NameRule(rf"{_POOLING}\.norm\.(.+)", r"backbone.stages.\1.pooling.norm.\2"),
)

_BLOCK = r"backbone_2d\.blocks\.(\d+)\.(\d+)"
_OUR_BLOCK = r"neck.levels.\1.\2"

# As in Haiyang-W/DSVT, pcdet/models/backbones_2d/base_bev_res_backbone.py.  A transposed
# convolution (in, out, k, k) meets a transposed one here and a plain one (out, in, k, k) a plain
# one, so no weight is ever turned; where in = out a turned one would fit without a word.
_RESIDUAL_BEV = (
    NameRule(rf"{_BLOCK}\.conv([12])\.(.+)", rf"{_OUR_BLOCK}.conv\3.\4"),
    NameRule(rf"{_BLOCK}\.bn([12])\.(.+)", rf"{_OUR_BLOCK}.norm\3.\4"),
    NameRule(rf"{_BLOCK}\.downsample_layer\.([01])\.(.+)", rf"{_OUR_BLOCK}.shortcut.\3.\4"),
    NameRule(r"backbone_2d\.deblocks\.(\d+)\.([01])\.(.+)", r"neck.resamplers.\1.\2.\3"),
)

_BRANCH = r"dense_head\.heads_list\.(\d+)\.([a-z_]+)\.(\d+)"
_OUR_BRANCH = r"head.branches.\1.branches.\2.\3"

# As in open-mmlab/OpenPCDet, pcdet/models/dense_heads/center_head.py
_CENTER_HEAD = (
    NameRule(r"dense_head\.shared_conv\.0\.(.+)", r"head.shared.conv.\1"),
    NameRule(r"dense_head\.shared_conv\.1\.(.+)", r"head.shared.norm.\1"),
    NameRule(rf"{_BRANCH}\.0\.(.+)", rf"{_OUR_BRANCH}.conv.\4"),
    NameRule(rf"{_BRANCH}\.1\.(.+)", rf"{_OUR_BRANCH}.norm.\4"),
    NameRule(rf"{_BRANCH}\.(weight|bias)", rf"{_OUR_BRANCH}.\4"),
)

_ATTENTION = r"dense_head\.decoder"
_OUR_ATTENTION = "head.transformer"
_PREDICTION = r"dense_head\.prediction_head\.([a-z]+)"
_OUR_PREDICTION = r"head.branches.\1"


def _attention(official: str, ours: str) -> tuple[NameRule, ...]:
    """Return the rules of one of the decoder's two attentions, and of its position embedding."""
    name = {"self": "self_attn", "cross": "multihead_attn"}[official]
    position = rf"{_ATTENTION}\.{official}_posembed\.position_embedding_head"
    kind = f"{_OUR_ATTENTION}.{official}_attention"
    return (
        NameRule(rf"{_ATTENTION}\.{name}\.in_proj_(weight|bias)", rf"{kind}.qkv.\1"),
        NameRule(rf"{_ATTENTION}\.{name}\.out_proj\.(.+)", rf"{kind}.out.\1"),
        NameRule(rf"{position}\.0\.(.+)", rf"{_OUR_ATTENTION}.{ours}_position.conv1.\1"),
        NameRule(rf"{position}\.1\.(.+)", rf"{_OUR_ATTENTION}.{ours}_position.norm.\1"),
        NameRule(rf"{position}\.3\.(.+)", rf"{_OUR_ATTENTION}.{ours}_position.conv2.\1"),
    )


# As in open-mmlab/OpenPCDet, pcdet/models/dense_heads/transfusion_head.py
_TRANSFUSION_HEAD = (
    NameRule(r"dense_head\.shared_conv\.(weight|bias)", r"head.shared.\1"),
    NameRule(r"dense_head\.heatmap_head\.0\.conv\.(.+)", r"head.heatmap.conv1.\1"),
    NameRule(r"dense_head\.heatmap_head\.0\.bn\.(.+)", r"head.heatmap.norm.\1"),
    NameRule(r"dense_head\.heatmap_head\.1\.(.+)", r"head.heatmap.conv2.\1"),
    NameRule(r"dense_head\.class_encoding\.(.+)", r"head.class_embedding.\1"),
    *_attention("self", "query"),
    *_attention("cross", "key"),
    NameRule(
        rf"{_ATTENTION}\.(linear1|linear2|norm1|norm2|norm3)\.(.+)", rf"{_OUR_ATTENTION}.\1.\2"
    ),
    NameRule(rf"{_PREDICTION}\.0\.0\.(.+)", rf"{_OUR_PREDICTION}.conv1.\2"),
    NameRule(rf"{_PREDICTION}\.0\.1\.(.+)", rf"{_OUR_PREDICTION}.norm.\2"),
    NameRule(rf"{_PREDICTION}\.1\.(.+)", rf"{_OUR_PREDICTION}.conv2.\2"),
)


def _scatterformer_stage(number: int) -> tuple[NameRule, ...]:
    """Return the rules of one stage: official numbers begin at 1."""
    stage = rf"backbone_3d\.stage{number}"
    ours = f"backbone.stages.{number - 1}"
    layer = rf"{ours}.layers.\1"
    feedforward = rf"{stage}\.0\.cffn_layers\.(\d+)"
    return (
        NameRule(rf"{stage}\.0\.norm_layers\.(\d+)\.(.+)", rf"{layer}.norm1.\2"),
        NameRule(rf"{stage}\.0\.attn_layers\.(\d+)\.qkv\.(.+)", rf"{layer}.attention.qkv.\2"),
        NameRule(rf"{stage}\.0\.attn_layers\.(\d+)\.proj\.(.+)", rf"{layer}.attention.out.\2"),
        NameRule(rf"{feedforward}\.bn\.(.+)", rf"{layer}.norm2.\2"),
        NameRule(rf"{feedforward}\.bn2\.(.+)", rf"{layer}.norm3.\2"),
        NameRule(rf"{feedforward}\.conv_k\.weight", rf"{layer}.conv.near"),
        NameRule(rf"{feedforward}\.conv_h\.weight", rf"{layer}.conv.along_x"),
        NameRule(rf"{feedforward}\.conv_w\.weight", rf"{layer}.conv.along_y"),
        NameRule(rf"{feedforward}\.fc([12])\.(.+)", rf"{layer}.linear\2.\3"),
        NameRule(rf"{stage}\.1\.(.+)", rf"{ours}.norm.\1"),
        NameRule(rf"{stage}\.2\.(.+)", rf"{ours}.down.\1"),
    )


def _scatterformer_block(number: int) -> tuple[NameRule, ...]:
    """Return the rules of one residual block of the stem: official numbers begin at 1."""
    block, ours = rf"backbone_3d\.cpe\.{number}", f"backbone.stem.blocks.{number - 1}"
    return (
        NameRule(rf"{block}\.conv([12])\.(.+)", rf"{ours}.conv\1.\2"),
        NameRule(rf"{block}\.bn([12])\.(.+)", rf"{ours}.norm\1.\2"),
    )


_PILLARS = r"backbone_3d\.app"

# skyhehe123/ScatterFormer: pcdet/models/backbones_3d/scatterformer.py
_SCATTERFORMER_BACKBONE = (
    NameRule(r"backbone_3d\.cpe\.0\.0\.(.+)", r"backbone.stem.first.conv.\1"),
    NameRule(r"backbone_3d\.cpe\.0\.1\.(.+)", r"backbone.stem.first.norm.\1"),
    *(rule for number in (1, 2, 3) for rule in _scatterformer_block(number)),
    NameRule(r"backbone_3d\.cpe\.4\.0\.(.+)", r"backbone.stem.down.conv.\1"),
    NameRule(r"backbone_3d\.cpe\.4\.1\.(.+)", r"backbone.stem.down.norm.\1"),
    *_scatterformer_stage(1),
    *_scatterformer_stage(2),
    NameRule(rf"{_PILLARS}\.norm\.(.+)", r"backbone.pooling.norm.\1"),
    NameRule(rf"{_PILLARS}\.self_attn\.in_proj_(weight|bias)", r"backbone.pooling.qkv.\1"),
    NameRule(rf"{_PILLARS}\.self_attn\.out_proj\.(.+)", r"backbone.pooling.out.\1"),
    NameRule(rf"{_PILLARS}\.pos_embedding\.weight", r"backbone.pooling.position"),
)

_CASCADE = r"backbone_2d\.layers\.(\d+)"
_OUR_CASCADE = r"neck.cascades.\1"

# skyhehe123/ScatterFormer: pcdet/models/backbones_2d/base_bev_backbone.py, CascadeDEDBackbone
_CASCADE_BEV = (
    NameRule(
        rf"{_CASCADE}\.encoder\.(\d+)\.(\d+)\.conv([12])\.(.+)",
        rf"{_OUR_CASCADE}.levels.\2.\3.conv\4.\5",
    ),
    NameRule(
        rf"{_CASCADE}\.encoder\.(\d+)\.(\d+)\.bn([12])\.(.+)",
        rf"{_OUR_CASCADE}.levels.\2.\3.norm\4.\5",
    ),
    NameRule(
        rf"{_CASCADE}\.encoder\.(\d+)\.(\d+)\.downsample_layer\.([01])\.(.+)",
        rf"{_OUR_CASCADE}.levels.\2.\3.shortcut.\4.\5",
    ),
    NameRule(rf"{_CASCADE}\.decoder\.(\d+)\.([01])\.(.+)", rf"{_OUR_CASCADE}.ups.\2.\3.\4"),
    NameRule(rf"{_CASCADE}\.decoder_norm\.(\d+)\.(.+)", rf"{_OUR_CASCADE}.joins.\2.\3"),
)

_DUAL = r"backbone_3d\.block_list\.(\d+)"
_OUR_DUAL = r"backbone.blocks.\1"


def _voxel_mamba_scan(number: int, ours: str) -> tuple[NameRule, ...]:
    """Return the rules of one of a block's two scans; A_log and D are there twice."""
    scan, ours = rf"{_DUAL}\.mamba_encoder_list\.{number}", f"{_OUR_DUAL}.{ours}"
    mixer = rf"{scan}\.mixer"
    return (
        NameRule(rf"{mixer}\.A_log", rf"{ours}.A_log"),
        NameRule(rf"{mixer}\.D", rf"{ours}.skip"),
        NameRule(rf"{mixer}\.(in_proj|x_proj|out_proj)\.weight", rf"{ours}.\2.weight"),
        NameRule(rf"{mixer}\.conv1d\.(.+)", rf"{ours}.conv.\2"),
        NameRule(rf"{mixer}\.dt_proj\.(.+)", rf"{ours}.step_proj.\2"),
        NameRule(rf"{mixer}\.A_log_temp\.param", rf"{ours}.A_log", repeated=True),
        NameRule(rf"{mixer}\.D_temp\.param", rf"{ours}.skip", repeated=True),
        NameRule(rf"{scan}\.norm\.weight", rf"{ours}.norm.weight"),
    )


_LOCAL = rf"{_DUAL}\.conv_encoder\.1\.blocks"

# gwenzhang/Voxel-Mamba: pcdet/models/backbones_3d/voxel_mamba_waymo.py
_VOXEL_MAMBA_BACKBONE = (
    *_voxel_mamba_scan(0, "coarse_scan"),
    *_voxel_mamba_scan(1, "fine_scan"),
    NameRule(rf"{_LOCAL}\.0\.0\.(.+)", rf"{_OUR_DUAL}.down.conv.\2"),
    NameRule(rf"{_LOCAL}\.0\.1\.(.+)", rf"{_OUR_DUAL}.down.norm.\2"),
    NameRule(rf"{_LOCAL}\.1\.conv1\.(.+)", rf"{_OUR_DUAL}.local.conv.\2"),
    NameRule(rf"{_LOCAL}\.1\.bn1\.(.+)", rf"{_OUR_DUAL}.local.norm.\2"),
    NameRule(rf"{_DUAL}\.conv_decoder\.0\.0\.(.+)", rf"{_OUR_DUAL}.up.conv.\2"),
    NameRule(rf"{_DUAL}\.conv_decoder\.0\.1\.(.+)", rf"{_OUR_DUAL}.up.norm.\2"),
    NameRule(rf"{_DUAL}\.conv_decoder_norm\.0\.(.+)", rf"{_OUR_DUAL}.norm.\2"),
    NameRule(rf"{_DUAL}\.norm\.(.+)", rf"{_OUR_DUAL}.coarse_norm.\2"),
    NameRule(rf"{_DUAL}\.norm_back\.(.+)", rf"{_OUR_DUAL}.fine_norm.\2"),
    NameRule(r"backbone_3d\.downZ_list\.(\d+)\.0\.(.+)", r"backbone.reductions.\1.conv.\2"),
    NameRule(r"backbone_3d\.downZ_list\.(\d+)\.1\.(.+)", r"backbone.reductions.\1.norm.\2"),
    NameRule(r"backbone_3d\.conv_out\.0\.(.+)", r"backbone.extra_reduction.conv.\1"),
    NameRule(r"backbone_3d\.conv_out\.1\.(.+)", r"backbone.extra_reduction.norm.\1"),
    NameRule(r"backbone_3d\.pos_embed\.0\.(.+)", r"backbone.position.linear1.\1"),
    NameRule(r"backbone_3d\.pos_embed\.1\.(.+)", r"backbone.position.norm.\1"),
    NameRule(r"backbone_3d\.pos_embed\.3\.(.+)", r"backbone.position.linear2.\1"),
)

# The training step counter of OpenPCDet's detectors.
_COUNTERS = (NameRule(r"global_step", None),)

SYSTEMS: dict[str, tuple[NameRule, ...]] = {
    "dsvt": (
        *(_COUNTERS + _DYNAMIC_ENCODER + _DSVT_BACKBONE + _RESIDUAL_BEV),
        *(_CENTER_HEAD + _TRANSFUSION_HEAD),
    ),
    "scatterformer": (
        *(_COUNTERS + _DYNAMIC_ENCODER + _SCATTERFORMER_BACKBONE + _CASCADE_BEV),
        *(_CENTER_HEAD + _TRANSFUSION_HEAD),
    ),
    "voxel_mamba": (
        _COUNTERS + _DYNAMIC_ENCODER + _VOXEL_MAMBA_BACKBONE + _RESIDUAL_BEV + _CENTER_HEAD
    ),
}


def find_rule(name: str, system: str) -> tuple[NameRule, str | None] | None:
    """Return the rule of an official name and our name; None if no rule knows the name.

    Raises:
        ValueError: unknown system.
    """
    if system not in SYSTEMS:
        raise ValueError(f"checkpoint: system must be one of {sorted(SYSTEMS)}, got {system!r}")
    for rule in SYSTEMS[system]:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return rule, None if rule.replacement is None else match.expand(rule.replacement)
    return None


def translate(name: str, system: str, *, part: str = "") -> str | None:
    """Return our name of an official one, None where it has no place here.

    Args:
        name: official name, relative to `part`.
        system: key of SYSTEMS, e.g. "dsvt".
        part: child of the official detector that names are relative to, e.g. "backbone_3d"; our
            name is then relative to our module of it. Empty: names of the whole detector.
    """
    found = find_rule(official_prefix(part) + name, system)
    if found is None or found[1] is None:
        return None
    return found[1].removeprefix(our_prefix(part))


def official_prefix(part: str) -> str:
    """Return what the official detector puts in front of the names of a part."""
    if part and part not in OFFICIAL_PARTS:
        raise ValueError(f"checkpoint: part must be one of {sorted(OFFICIAL_PARTS)}, got {part!r}")
    return f"{part}." if part else ""


def our_prefix(part: str) -> str:
    """Return what our Detector puts in front of the names of an official part."""
    return f"{OFFICIAL_PARTS[part]}." if part else ""
