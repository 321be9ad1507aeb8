"""ScatterFormer: linear attention inside windows of any length (ECCV 2024, skyhehe123)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.layers.linear_attention import CrossWindowConv, ScatteredAttention
from perception3d.layers.normalization import RowBatchNorm, affine_of
from perception3d.layers.pillar_pooling import PillarPooling
from perception3d.layers.sparse_conv import (
    NORM_EPS,
    NORM_MOMENTUM,
    Affine,
    SparseConv3d,
    SparseConvBlock,
    SparseResidualBlock,
    SubMConv3d,
)
from perception3d.ops.linear import linear
from perception3d.structures import SparseVoxels, WindowSpec

_HEIGHT_STEP = 4  # the stem and the strided convolution halve the height


class ScatterFormerLayer(nn.Module):
    """Attention inside windows, then a feed-forward network that looks across their borders.

    x <- x + attention(BN(x));  x <- BN(x), which replaces the residual stream;
    x <- x + depth-wise convolutions of x;  x <- x + linear(ReLU(linear(BN(x)))).

    Args:
        channels: width C, a multiple of `heads` and of 4.
        heads: attention heads.
        conv_size: odd length of the depth-wise lines, cells.
        feedforward: hidden width.
        depthwise_init: see CrossWindowConv.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        conv_size: int,
        feedforward: int,
        depthwise_init: str = "zero",
    ) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.attention = ScatteredAttention(channels, heads)
        self.norm2 = _norm(channels)
        self.conv = CrossWindowConv(channels, conv_size, init=depthwise_init)
        self.norm3 = _norm(channels)
        self.linear1 = RowLinear(channels, feedforward)
        self.linear2 = RowLinear(feedforward, channels)

    def forward(self, voxels: SparseVoxels, offsets: Tensor) -> SparseVoxels:
        """Transform N voxels with C channels, rows sorted by window.

        Args:
            voxels: voxels.
            offsets: (W + 1,) int64, window w holds the rows offsets[w]:offsets[w + 1].
        """
        affines = [affine_of(norm) for norm in (self.norm1, self.norm2, self.norm3)]
        folded = [affine for affine in affines if affine is not None]
        if len(folded) == len(affines):
            return self._infer(voxels, offsets, *folded)
        features = voxels.features
        features = self.norm2(features + self.attention(self.norm1(features), offsets))
        features = self.conv(voxels.with_features(features))
        linear1 = self.linear1
        inner = linear(self.norm3(features), linear1.weight, linear1.bias, "relu")
        return voxels.with_features(features + self.linear2(inner))

    def _infer(
        self, voxels: SparseVoxels, offsets: Tensor, first: Affine, second: Affine, third: Affine
    ) -> SparseVoxels:
        """Compute the same without gradients: every norm is part of the linear map beside it."""
        scale, shift = first
        weight = self.attention.qkv.weight
        qkv = linear(voxels.features, weight * scale, weight @ shift)
        mixed = self.attention.attend(qkv, offsets)
        scale, shift = second
        out = self.attention.out
        mixed = linear(mixed, out.weight * scale[:, None], torch.addcmul(shift, out.bias, scale))
        features = torch.addcmul(mixed, voxels.features, scale)
        features = self.conv(voxels.with_features(features))
        scale, shift = third
        weight = self.linear1.weight
        bias = self.linear1.bias + weight @ shift
        inner = linear(features, weight * scale, bias, "relu")
        return voxels.with_features(features + self.linear2(inner))


class ScatterFormerStage(nn.Module):
    """Layers that share one partition into windows, a norm, and the way to the next stage.

    Args:
        layers: layers.
        window: window size in cells (y, x); a window is as high as the grid.
        channels: width C.
        down: strided convolution that follows, None after the last stage.
    """

    def __init__(
        self,
        layers: Sequence[ScatterFormerLayer],
        window: tuple[int, int],
        channels: int,
        down: SparseConv3d | None,
    ) -> None:
        super().__init__()
        self.window = window
        self.layers = nn.ModuleList(layers)
        self.norm = _norm(channels)
        self.down = down

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform N voxels with C channels; rows come out sorted by window, or downsampled."""
        return self.finish(self.mix(voxels))

    def spec(self, voxels: SparseVoxels) -> WindowSpec:
        """Return how the grid of these voxels is cut."""
        return WindowSpec((voxels.spatial_shape[0], *self.window), axis_order="zyx")

    def mix(self, voxels: SparseVoxels) -> SparseVoxels:
        """Run the layers; rows come out sorted by window, stable."""
        windows = voxels.windows(self.spec(voxels))
        voxels = voxels.take(windows.order)  # once: all layers then read each window in one sweep
        for layer in self.layers:
            voxels = layer(voxels, windows.offsets)
        return voxels

    def finish(self, voxels: SparseVoxels) -> SparseVoxels:
        """Normalise and downsample what `mix` returned."""
        voxels = voxels.with_features(self.norm(voxels.features))
        return voxels if self.down is None else self.down(voxels)


class ScatterFormerStem(nn.Module):
    """Submanifold convolution, three residual blocks, and a convolution that halves the height.

    It stands in for a position embedding.  The grid grows by one empty plane in z, as that of
    the published networks.

    Args:
        in_channels, channels: widths.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.first = SparseConvBlock(SubMConv3d(in_channels, channels))
        self.blocks = nn.ModuleList(SparseResidualBlock(channels) for _ in range(3))
        self.down = SparseConvBlock(SparseConv3d(channels, channels, (3, 1, 1), (2, 1, 1)))

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Map N voxels on (Z, Y, X) cells to M on (Z / 2, Y, X)."""
        depth, height, width = voxels.spatial_shape
        voxels = SparseVoxels(
            voxels.features, voxels.coords, (depth + 1, height, width), voxels.batch_size
        )
        voxels = self.first(voxels)
        for block in self.blocks:
            voxels = block(voxels)
        result: SparseVoxels = self.down(voxels)
        return result


class ScatterFormer(nn.Module):
    """Backbone of linear attention in windows that are full-height columns.

    Args:
        grid_size: cells (x, y, z); must be the voxelizer's.  z must be a multiple of 4.
        in_channels: width of the voxels.
        channels: width C of everything else, a multiple of 4, `heads` and `pooling_heads`.
        window: cells of a window along x and y, the same number in every stage.
        heads: attention heads.
        conv_size: odd length of the depth-wise kernels along x and y, cells; None: window + 1.
        layers: layers of the two stages.
        feedforward: hidden width of the feed-forward networks; None: 2 C.
        pooling_heads: heads of the pillar pooling.
        depthwise_init: "zero", as the published results began, or "normal"; see CrossWindowConv.

    Attributes:
        stride: cells of the voxel grid per cell of the result, along x and y.

    Raises:
        ValueError: settings that do not fit each other.
    """

    stride = 2

    def __init__(  # noqa: PLR0913  # mirrors the published settings one to one
        self,
        grid_size: tuple[int, int, int],
        in_channels: int = 64,
        channels: int = 128,
        window: int = 12,
        heads: int = 4,
        *,
        conv_size: int | None = None,
        layers: tuple[int, int] = (3, 3),
        feedforward: int | None = None,
        pooling_heads: int = 8,
        depthwise_init: str = "zero",
    ) -> None:
        super().__init__()
        width, height, depth = grid_size
        if min(grid_size) < 1 or depth % _HEIGHT_STEP:
            raise ValueError(
                "ScatterFormer: grid_size (x, y, z) must be positive, and z a multiple of "
                f"{_HEIGHT_STEP} (it is halved twice), got {tuple(grid_size)}; change the height "
                "of a voxel or the range in z"
            )
        if window < 1 or len(layers) != 2 or min(layers) < 1:
            raise ValueError(
                "ScatterFormer: window must be >= 1 and layers two counts >= 1, got "
                f"{window} and {tuple(layers)}"
            )
        if conv_size is None and window % 2:
            raise ValueError(
                f"ScatterFormer: window {window} is odd, so window + 1 is no odd kernel length; "
                "give conv_size"
            )
        self.grid_size = (width, height, depth)
        self.in_channels, self.out_channels = in_channels, channels
        length = window + 1 if conv_size is None else conv_size
        self.stem = ScatterFormerStem(in_channels, channels)
        downs = [SparseConv3d(channels, channels, 3, 2, 1), None]
        self.stages = nn.ModuleList(
            ScatterFormerStage(
                [
                    ScatterFormerLayer(
                        channels, heads, length, feedforward or 2 * channels, depthwise_init
                    )
                    for _ in range(count)
                ],
                (window, window),
                channels,
                down,
            )
            for count, down in zip(layers, downs, strict=True)
        )
        self.pooling = PillarPooling(channels, depth // _HEIGHT_STEP, pooling_heads)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform voxels into pillars.

        Args:
            voxels: N voxels with `in_channels` channels on `grid_size`.

        Returns:
            Pillars with C channels, rows ascending by (b, y, x), on a grid of half the size in x
            and y, rounded up.

        Raises:
            ValueError: another grid or width.
        """
        width, height, depth = self.grid_size
        if voxels.spatial_shape != (depth, height, width):
            raise ValueError(
                "ScatterFormer: voxels must lie on a grid of "
                f"{(depth, height, width)} cells (z, y, x), got {voxels.spatial_shape}"
            )
        if voxels.features.shape[1] != self.in_channels:
            raise ValueError(
                f"ScatterFormer: features must be (N, {self.in_channels}), "
                f"got {tuple(voxels.features.shape)}"
            )
        voxels = self.stem(voxels)
        for stage in self.stages:
            voxels = stage(voxels)
        result: SparseVoxels = self.pooling(voxels)
        return result

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what the published trainings never updated, by accident of their optimiser.

        These are the projections of the pillar pooling (open-mmlab/OpenPCDet, issue 960).  The
        optimiser setting `official_frozen` leaves them out; by default everything is trained.
        """
        yield from self.pooling.qkv.parameters()


def _norm(channels: int) -> RowBatchNorm:
    return RowBatchNorm(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
