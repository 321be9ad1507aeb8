"""Convolutions of a TransFusionHead, and what they give."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception3d.models.heads.center_branches import HEATMAP_BIAS

BORDERS = ("clamp", "wrap")


@dataclass(frozen=True)
class TransFusionOutput:
    """Raw predictions of a TransFusionHead for Q queries per frame.

    Attributes:
        dense_heatmap: (B, C, H, W) heat map logits of the map that the queries come from.
        query_labels: (B, Q) int64, class that each query was picked for.
        query_scores: (B, C, Q) heat at the cell of each query, 0 where it is no peak of a class;
            without gradient.
        center: (B, 2, Q) x, y of the centre, cells of the map.
        height: (B, 1, Q) z of the centre, or of the top (see QueryCode), m.
        dim: (B, 3, Q) logarithm of length, width, height in m.
        rot: (B, 2, Q) sin and cos of the yaw, of any length.
        vel: (B, 2, Q) vx, vy, m/s.
        heatmap: (B, C, Q) class logits.
        iou: (B, 1, Q) expected 3-D IoU of the box, as 2 IoU - 1, None without that branch.
    """

    dense_heatmap: Tensor
    query_labels: Tensor
    query_scores: Tensor
    center: Tensor
    height: Tensor
    dim: Tensor
    rot: Tensor
    vel: Tensor
    heatmap: Tensor
    iou: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of frames."""
        return self.heatmap.shape[0]

    @property
    def codes(self) -> Tensor:
        """(B, Q, 10) box codes, columns as in QueryCode."""
        parts = (self.center, self.height, self.dim, self.rot, self.vel)
        return torch.cat(parts, dim=1).transpose(1, 2)


@dataclass(frozen=True)
class TransFusionLayers:
    """Shape of the network; the defaults are those of OpenPCDet's TransFusion-L on nuScenes.

    Attributes:
        channels: width C of the map, the queries and the attention.
        heads: attention heads.
        feedforward: hidden width of the feed-forward network.
        branch_channels: hidden width of the prediction branches.
        dropout: probability, in attention and feed-forward network.
        iou: predict the IoU of each box, to correct its score.
        bias_before_norm: convolutions before a BatchNorm have a bias (the networks of DSVT and
            ScatterFormer).
        transposed: the network sees the map with x along its rows (DSVT): its 3x3 kernels, and
            what lies beyond a border under "wrap", are turned.
        local_radius: queries attend to the square of (2 radius + 1)^2 cells around theirs, and
            not to each other; None: to all cells, and to each other.
        local_border: what such a square holds beyond the border. "clamp": the nearest cell, once
            more for every cell that lacks (ScatterFormer).  "wrap": the far end of the row before
            or after, nothing beyond the first and the last row (DSVT).
        height: what is predicted of a box's height, z of its "center" or of its "top" (DSVT).
        norm_eps, norm_momentum: of the BatchNorms.

    Raises:
        ValueError: settings that make no network.
    """

    channels: int = 128
    heads: int = 8
    feedforward: int = 256
    branch_channels: int = 64
    dropout: float = 0.1
    iou: bool = False
    bias_before_norm: bool = False
    transposed: bool = False
    local_radius: int | None = None
    local_border: str = "clamp"
    height: str = "center"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        if min(self.channels, self.heads, self.feedforward, self.branch_channels) < 1:
            raise ValueError(
                "TransFusionLayers: channels, heads, feedforward and branch_channels must be >= 1, "
                f"got {self.channels}, {self.heads}, {self.feedforward}, {self.branch_channels}"
            )
        if self.channels % self.heads or not 0 <= self.dropout < 1:
            raise ValueError(
                "TransFusionLayers: channels must be a multiple of heads and dropout in [0, 1), "
                f"got {self.channels}, {self.heads} and {self.dropout}"
            )
        if self.local_border not in BORDERS or (self.local_radius or 0) < 0:
            raise ValueError(
                f"TransFusionLayers: local_border must be one of {BORDERS} and local_radius >= 0, "
                f"got {self.local_border!r} and {self.local_radius}"
            )

    def channels_of_branch(self, num_classes: int) -> dict[str, int]:
        """Return the width of each prediction branch, in the order of official checkpoints."""
        branches = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
        if self.iou:
            branches["iou"] = 1
        return {**branches, "heatmap": num_classes}


class HeatmapConvs(nn.Module):
    """Convolution - BatchNorm - ReLU - convolution, 3x3, to one channel per class.

    Args:
        num_classes: classes C.
        layers: width, bias and BatchNorm settings.
    """

    def __init__(self, num_classes: int, layers: TransFusionLayers) -> None:
        super().__init__()
        width = layers.channels
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=layers.bias_before_norm)
        self.norm = nn.BatchNorm2d(width, eps=layers.norm_eps, momentum=layers.norm_momentum)
        self.conv2 = nn.Conv2d(width, num_classes, 3, padding=1)
        assert self.conv2.bias is not None
        nn.init.constant_(self.conv2.bias, HEATMAP_BIAS)

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, channels, H, W) to logits (B, C, H, W)."""
        logits: Tensor = self.conv2(torch.relu(self.norm(self.conv1(bev))))
        return logits


class QueryBranch(nn.Module):
    """Linear map - BatchNorm - ReLU - linear map of every query.

    Args:
        out_channels: width of the output.
        layers: widths, bias and BatchNorm settings.
    """

    def __init__(self, out_channels: int, layers: TransFusionLayers) -> None:
        super().__init__()
        width = layers.branch_channels
        self.conv1 = nn.Conv1d(layers.channels, width, 1, bias=layers.bias_before_norm)
        self.norm = nn.BatchNorm1d(width, eps=layers.norm_eps, momentum=layers.norm_momentum)
        self.conv2 = nn.Conv1d(width, out_channels, 1)

    def forward(self, queries: Tensor) -> Tensor:
        """Map (B, channels, Q) to (B, out_channels, Q)."""
        values: Tensor = self.conv2(torch.relu(self.norm(self.conv1(queries))))
        return values


def query_branches(num_classes: int, layers: TransFusionLayers) -> nn.ModuleDict:
    """Return the prediction branches by name; class logits start at p = 0.1."""
    branches = nn.ModuleDict(
        {
            name: QueryBranch(width, layers)
            for name, width in layers.channels_of_branch(num_classes).items()
        }
    )
    last = branches["heatmap"].conv2
    assert isinstance(last, nn.Conv1d)
    assert last.bias is not None
    nn.init.constant_(last.bias, HEATMAP_BIAS)
    return branches
