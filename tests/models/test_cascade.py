"""The cascade of encoder-decoders against its official names, spelt out."""

import pytest
import torch
import torch.nn.functional as F

from perception3d.checkpoint import official_name
from perception3d.models.necks.cascade import CascadeBackbone
from perception3d.structures import SparseVoxels

Weights = dict[str, torch.Tensor]


def spelt_out(
    weights: Weights, bev: torch.Tensor, cascades: int, levels: list[int]
) -> torch.Tensor:
    """The network of `base_bev_backbone.py`, from weights under its names."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.batch_norm(x, *parts, scale, shift, eps=1e-3)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        stride, shortcut = 1, x
        if f"{name}.downsample_layer.0.weight" in weights:
            stride = 2
            shortcut = F.conv2d(x, weights[f"{name}.downsample_layer.0.weight"], stride=2)
            shortcut = norm(shortcut, f"{name}.downsample_layer.1")
        x = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        x = norm(x, f"{name}.bn1").relu()
        x = norm(F.conv2d(x, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        return (x + shortcut).relu()

    for cascade in range(cascades):
        layer, kept = f"backbone_2d.layers.{cascade}", []
        for level, blocks in enumerate(levels):
            for number in range(blocks):
                bev = block(bev, f"{layer}.encoder.{level}.{number}")
            kept.append(bev)
        bev = kept[-1]
        for step, skip in enumerate(reversed(kept[:-1])):
            bev = F.conv_transpose2d(bev, weights[f"{layer}.decoder.{step}.0.weight"], stride=2)
            bev = norm(bev, f"{layer}.decoder.{step}.1").relu() + skip
            bev = norm(bev, f"{layer}.decoder_norm.{step}")
    return bev


def randomised(neck: CascadeBackbone) -> CascadeBackbone:
    generator = torch.Generator().manual_seed(0)
    for name, value in neck.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point() and value.ndim < 2:
            value.normal_(generator=generator)
    return neck.double()


def test_equals_the_official_network_by_its_names():
    neck = randomised(CascadeBackbone(8, 8, cascades=2)).eval()
    weights = {
        official_name(f"neck.{name}", "scatterformer"): value
        for name, value in neck.state_dict().items()
    }
    bev = torch.randn(2, 8, 12, 16, dtype=torch.float64)
    torch.testing.assert_close(neck.refine(bev), spelt_out(weights, bev, 2, [2, 2, 2]))


def test_published_size():
    neck = CascadeBackbone(128)
    assert sum(weight.numel() for weight in neck.parameters()) == 7_751_680
    assert (neck.stride, neck.out_channels) == (1, 128)


def test_another_width_and_stride_take_a_projection():
    neck = CascadeBackbone(10, 4, 2, (1, 1), (2, 2))
    voxels = SparseVoxels(torch.ones(1, 5), torch.zeros(1, 4, dtype=torch.int32), (2, 8, 12), 3)
    assert neck(voxels).shape == (3, 4, 4, 6)
    assert neck.stride == 2
    neck(voxels).sum().backward()
    assert all(weight.grad is not None for weight in neck.parameters())


def test_start_of_the_weights():
    torch.manual_seed(0)
    neck = CascadeBackbone(64, 64, 1, (1, 1), (1, 2))
    deviation = neck.cascades[0].levels[0][0].conv1.weight.std().item()
    assert deviation == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)  # fan out, ReLU


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match="one entry per level"):
        CascadeBackbone(8, blocks=(1, 1), strides=(1,))
    with pytest.raises(ValueError, match="one or more encoder-decoders"):
        CascadeBackbone(8, cascades=0)
    neck = CascadeBackbone(8, 8, 1)
    with pytest.raises(ValueError, match=r"multiple of 4 cells.*got \(H, W\) = \(8, 10\)"):
        neck.refine(torch.zeros(1, 8, 8, 10))
    with pytest.raises(ValueError, match=r"bev must be \(B, 8, H, W\)"):
        neck.refine(torch.zeros(1, 9, 8, 8))
