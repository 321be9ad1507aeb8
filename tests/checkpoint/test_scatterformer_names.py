"""ScatterFormer's official names, and weights in the layout of spconv 1.x."""

from pathlib import Path

import pytest
import torch

from perception3d.checkpoint import load_official, official_name, to_official
from perception3d.engine.build import build
from perception3d.engine.config import load_config
from perception3d.models.backbones import ScatterFormer
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterHead, CenterLayers
from perception3d.models.necks.cascade import CascadeBackbone
from perception3d.models.voxelizer import Voxelizer

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "scatterformer"
RANGE, VOXEL = (0.0, 0.0, 0.0, 8.0, 8.0, 4.0), (1.0, 1.0, 1.0)


def backbone() -> ScatterFormer:
    net = ScatterFormer((8, 8, 4), 6, 8, 2, 2, layers=(3, 3))
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    return net


def official_backbone() -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes as in section 3 of the specification, width 8, without step counters."""

    def norm(name: str) -> list:
        parts = ("weight", "bias", "running_mean", "running_var")
        return [(f"{name}.{part}", (8,)) for part in parts]

    def linear(name: str, out: int, into: int) -> list:
        return [(f"{name}.weight", (out, into)), (f"{name}.bias", (out,))]

    names = [("cpe.0.0.weight", (8, 3, 3, 3, 6)), *norm("cpe.0.1")]
    for block in (1, 2, 3):
        for number in (1, 2):
            conv = f"cpe.{block}.conv{number}"
            names += [(f"{conv}.weight", (8, 3, 3, 3, 8)), (f"{conv}.bias", (8,))]
            names += norm(f"cpe.{block}.bn{number}")
    names += [("cpe.4.0.weight", (8, 3, 1, 1, 8)), *norm("cpe.4.1")]
    for stage in ("stage1", "stage2"):
        for layer in range(3):
            names += norm(f"{stage}.0.norm_layers.{layer}")
        for layer in range(3):
            names += [(f"{stage}.0.attn_layers.{layer}.qkv.weight", (24, 8))]
            names += linear(f"{stage}.0.attn_layers.{layer}.proj", 8, 8)
        for layer in range(3):
            part = f"{stage}.0.cffn_layers.{layer}"
            names += norm(f"{part}.bn")
            shapes = {"k": (3, 3, 3, 2), "h": (1, 1, 3, 2), "w": (1, 3, 1, 2)}
            names += [(f"{part}.conv_{kind}.weight", shape) for kind, shape in shapes.items()]
            names += norm(f"{part}.bn2")
            names += linear(f"{part}.fc1", 16, 8) + linear(f"{part}.fc2", 8, 16)
        names += norm(f"{stage}.1")
        if stage == "stage1":
            names += [("stage1.2.weight", (8, 3, 3, 3, 8))]
    names += [("app.norm.weight", (8,)), ("app.norm.bias", (8,))]
    names += [("app.self_attn.in_proj_weight", (24, 8)), ("app.self_attn.in_proj_bias", (24,))]
    names += linear("app.self_attn.out_proj", 8, 8)
    return [*names, ("app.pos_embedding.weight", (1, 8))]


def in_order(net: ScatterFormer) -> dict[str, torch.Tensor]:
    detector = torch.nn.Module()
    detector.backbone = net
    official = to_official(detector, "scatterformer")
    return {
        name.removeprefix("backbone_3d."): value
        for name, value in official.items()
        if name != "global_step" and not name.endswith("num_batches_tracked")
    }


def test_names_shapes_and_order_are_the_official_ones():
    found = [(name, tuple(value.shape)) for name, value in in_order(backbone()).items()]
    assert found == official_backbone()


def test_weights_of_spconv_1_are_turned():
    source, target = backbone(), backbone()
    weights = in_order(source)
    turned = {
        name: value.permute(1, 2, 3, 4, 0) if value.ndim == 5 else value
        for name, value in weights.items()
    }
    report = load_official(target, turned, "scatterformer", part="backbone_3d")
    assert report.complete
    assert len(report.reshaped) == 9
    for name, value in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, target.state_dict()[name]), name
    assert load_official(target, weights, "scatterformer", part="backbone_3d").reshaped == ()


def detector() -> Detector:
    return Detector(
        Voxelizer(VOXEL, RANGE),
        VoxelEncoder(VOXEL, RANGE, 4, (6, 6)),
        backbone(),
        CascadeBackbone(8, 8, 2, (1, 1), (1, 2)),
        CenterHead(8, ("a", "b"), BevGrid(VOXEL, RANGE, 2), None, CenterLayers(iou=True)),
    )


def test_a_whole_detector_there_and_back():
    source, target = detector(), detector()
    official = to_official(source, "scatterformer")
    assert "backbone_2d.layers.1.decoder.0.1.running_mean" in official
    assert "vfe.pfn_layers.0.linear.weight" in official
    report = load_official(target, official, "scatterformer")
    assert report.complete
    for name, value in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, target.state_dict()[name]), name


def test_names_by_hand():
    pairs = {
        "backbone.stages.1.layers.2.conv.along_x": (
            "backbone_3d.stage2.0.cffn_layers.2.conv_h.weight"
        ),
        "backbone.stages.0.layers.0.norm3.bias": "backbone_3d.stage1.0.cffn_layers.0.bn2.bias",
        "backbone.stem.blocks.2.norm1.weight": "backbone_3d.cpe.3.bn1.weight",
        "neck.cascades.3.levels.2.0.shortcut.0.weight": (
            "backbone_2d.layers.3.encoder.2.0.downsample_layer.0.weight"
        ),
        "neck.cascades.0.ups.1.0.weight": "backbone_2d.layers.0.decoder.1.0.weight",
        "neck.cascades.0.joins.1.weight": "backbone_2d.layers.0.decoder_norm.1.weight",
        "head.shared.bias": "dense_head.shared_conv.bias",
        "head.shared.conv.weight": "dense_head.shared_conv.0.weight",
        "head.transformer.cross_attention.qkv.bias": (
            "dense_head.decoder.multihead_attn.in_proj_bias"
        ),
        "head.branches.iou.norm.weight": "dense_head.prediction_head.iou.0.1.weight",
    }
    assert {name: official_name(name, "scatterformer") for name in pairs} == pairs


@pytest.mark.parametrize("name", ["scatterformer_waymo", "scatterformer_nuscenes"])
def test_every_tensor_of_the_published_detectors_has_a_name(name: str):
    config = load_config(CONFIGS / f"{name}.py")
    names = list(build(config.model).net.state_dict())
    assert len({official_name(name, "scatterformer") for name in names}) == len(names)
