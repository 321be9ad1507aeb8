"""Official names both ways, and weights that could be turned without a word."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perception3d.checkpoint import (
    CheckpointError,
    load_official,
    official_name,
    to_official,
    translate,
)
from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterHead, CenterLayers
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

RANGE = (0.0, 0.0, 0.0, 8.0, 8.0, 4.0)
VOXEL = (1.0, 1.0, 1.0)


def build() -> Detector:
    stages = [
        DSVTStage((4, 4, 4), 8, blocks=2, pool_stride=(1, 1, 4)),
        DSVTStage((4, 4, 1), 8),
    ]
    return Detector(
        Voxelizer(VOXEL, RANGE),
        VoxelEncoder(VOXEL, RANGE, 4, (16, 16)),
        DSVT((8, 8, 4), stages, 16),
        BevBackbone(16, (1, 1), (1, 2), (8, 8), (0.5, 1), (8, 8)),
        CenterHead(
            16,
            ("a", "b"),
            BevGrid(VOXEL, RANGE, 2),
            [["a"], ["b"]],
            CenterLayers(iou=True, shared_channels=8, num_convs=3, bias_before_norm=True),
        ),
    )


def test_every_name_has_an_official_one_and_back():
    names = list(build().state_dict())
    official = [official_name(name, "dsvt") for name in names]
    assert len(set(official)) == len(names)
    assert [translate(name, "dsvt") for name in official] == names


def test_names_by_hand():
    pairs = {
        "neck.levels.2.1.norm2.running_var": "backbone_2d.blocks.2.1.bn2.running_var",
        "neck.levels.1.0.shortcut.0.weight": "backbone_2d.blocks.1.0.downsample_layer.0.weight",
        "neck.resamplers.0.1.bias": "backbone_2d.deblocks.0.1.bias",
        "head.shared.conv.weight": "dense_head.shared_conv.0.weight",
        "head.branches.3.branches.center_z.1.norm.bias": (
            "dense_head.heads_list.3.center_z.1.1.bias"
        ),
        "head.branches.0.branches.hm.2.bias": "dense_head.heads_list.0.hm.2.bias",
        "backbone.stages.1.pooling.qkv.bias": (
            "backbone_3d.stage_1_reduction.self_attn.in_proj_bias"
        ),
    }
    assert {ours: official_name(ours, "dsvt") for ours in pairs} == pairs
    with pytest.raises(CheckpointError, match=r"no name for neck\.other"):
        official_name("neck.other", "dsvt")
    with pytest.raises(ValueError, match="system must be one of"):
        official_name("neck.other", "none")


def test_official_order_goes_by_stage_and_then_by_kind():
    names = list(to_official(build(), "dsvt"))
    firsts = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    assert [first for first in firsts if first.startswith(("g", "v", "backbone_3d"))] == [
        "global_step",
        "vfe.pfn_layers",
        "backbone_3d.input_layer",
        "backbone_3d.stage_0",
        "backbone_3d.residual_norm_stage_0",
        "backbone_3d.stage_0_reduction",
        "backbone_3d.stage_1",
        "backbone_3d.residual_norm_stage_1",
    ]
    pooling = [name.split(".")[2] for name in names if "stage_0_reduction" in name]
    assert list(dict.fromkeys(pooling)) == ["pos_embedding", "norm", "self_attn"]


def test_weights_survive_the_way_there_and_back():
    torch.manual_seed(0)
    first, second = build(), build()
    report = load_official(second, to_official(first, "dsvt"), "dsvt")
    assert report.complete
    assert report.ignored == ("global_step",)
    for (name, ours), theirs in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_square_resampling_weights_are_not_turned():
    """deblocks.0 is a plain convolution, deblocks.1 a transposed one, both (8, 8, k, k)."""
    torch.manual_seed(0)
    neck = BevBackbone(8, (0, 0), (1, 2), (8, 8), (0.5, 1), (8, 8)).eval()
    half, same = torch.randn(8, 8, 2, 2), torch.randn(8, 8, 1, 1)
    weights = {"deblocks.0.0.weight": half, "deblocks.1.0.weight": same}
    report = load_official(neck, weights, "dsvt", part="backbone_2d", strict=False)
    assert report.unexpected == report.reshaped == ()
    image = torch.randn(1, 8, 6, 6)
    assert torch.allclose(neck.resamplers[0][0](image), F.conv2d(image, half, stride=2), atol=1e-5)
    turned = F.conv_transpose2d(image, same)
    assert torch.allclose(neck.resamplers[1][0](image), turned, atol=1e-5)
    assert not torch.allclose(neck.resamplers[1][0](image), F.conv2d(image, same), atol=1e-2)


def test_a_turned_weight_of_unequal_widths_is_refused():
    neck = BevBackbone(8, (0,), (2,), (8,), (2,), (4,))
    report = load_official(
        neck,
        {"deblocks.0.0.weight": torch.zeros(4, 8, 2, 2)},
        "dsvt",
        part="backbone_2d",
        strict=False,
    )
    assert report.unexpected == (
        "deblocks.0.0.weight (4, 8, 2, 2) for resamplers.0.0.weight (8, 4, 2, 2)",
    )


def test_what_has_no_official_name_is_not_left_out():
    model = build()
    model.extra = nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"no name for extra\.weight"):
        to_official(model, "dsvt")
