"""Cascade of dense encoder-decoders on the bird's-eye-view map (HEDNet; also ScatterFormer's)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from perception3d.checks import FLOATS, check_tensor
from perception3d.layers.conv_norm import NormedConv
from perception3d.layers.residual import add_residual
from perception3d.models.necks.bev import scatter_to_bev
from perception3d.models.necks.residual_block import ResidualBlock, map_norm
from perception3d.structures import SparseVoxels


class DenseEncoderDecoder(nn.Module):
    """Levels of falling resolution and the way back up, each step joined by a sum.

    A level begins with a block with projection shortcut where it changes resolution or width, and
    continues with plain ones.  Upwards, x = BN(ReLU(BN(transposed convolution(x))) + level).

    Args:
        in_channels, channels: width of the input and of everything else.
        blocks: plain blocks per level.
        strides: stride of each level relative to the one before.
    """

    def __init__(
        self, in_channels: int, channels: int, blocks: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        widths = [in_channels, *(channels for _ in blocks)]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(
                    [ResidualBlock(widths[i], channels, strides[i], project=True)]
                    if strides[i] != 1 or widths[i] != channels
                    else []
                ),
                *(ResidualBlock(channels, channels) for _ in range(count)),
            )
            for i, count in enumerate(blocks)
        )
        self.ups = nn.ModuleList(  # from the coarsest level on
            NormedConv(
                nn.ConvTranspose2d(channels, channels, stride, stride, bias=False),
                map_norm(channels),
                relu=True,
            )
            for stride in reversed(strides[1:])
        )
        self.joins = nn.ModuleList(map_norm(channels) for _ in self.ups)

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / strides[0], W / strides[0])."""
        results = []
        for level in self.levels:
            bev = level(bev)
            results.append(bev)
        bev = results.pop()
        for up, join in zip(self.ups, self.joins, strict=True):
            bev = join(add_residual(up(bev), results.pop()))
        return bev


class CascadeBackbone(nn.Module):
    """Dense map and a row of encoder-decoders (skyhehe123/ScatterFormer: CascadeDEDBackbone).

    Args:
        in_channels: channels of the map: channels of a voxel times cells in z.
        channels: width of everything else.
        cascades: encoder-decoders.
        blocks: plain blocks per level of each.
        strides: stride of each level relative to the one before; the first is 1 in all
            encoder-decoders but the first.

    Attributes:
        stride: cells of the voxel grid per cell of the output, along x and y.
        out_channels: width of the output.

    Raises:
        ValueError: no encoder-decoder, or lists of unequal length.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 128,
        cascades: int = 4,
        blocks: Sequence[int] = (2, 1, 1),
        strides: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if cascades < 1 or not blocks or len(blocks) != len(strides):
            raise ValueError(
                "CascadeBackbone: one or more encoder-decoders and one entry per level are "
                f"needed, got cascades {cascades}, blocks {blocks}, strides {strides}"
            )
        self.in_channels, self.out_channels = in_channels, channels
        self.stride = strides[0]
        self.total_stride = math.prod(strides)
        later = [1, *strides[1:]]
        self.cascades = nn.ModuleList(
            DenseEncoderDecoder(channels, channels, blocks, later)
            if number
            else DenseEncoderDecoder(in_channels, channels, blocks, strides)
            for number in range(cascades)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, voxels: SparseVoxels) -> Tensor:
        """Turn N voxels on a (D, H, W) grid into a map (B, channels, H / stride, W / stride).

        Raises:
            ValueError: channels times D is not `in_channels`, or a grid that the strides do not
                divide.
        """
        return self.refine(scatter_to_bev(voxels))

    def refine(self, bev: Tensor) -> Tensor:
        """Run the 2-D network on a dense map (B, in_channels, H, W); see `forward`."""
        check_tensor("CascadeBackbone", "bev", bev, ("B", self.in_channels, "H", "W"), FLOATS)
        if any(size % self.total_stride for size in bev.shape[2:]):
            raise ValueError(
                f"CascadeBackbone: map size must be a multiple of {self.total_stride} cells, the "
                f"product of the strides, got (H, W) = {tuple(bev.shape[2:])}; change voxel size "
                "or range"
            )
        for cascade in self.cascades:
            bev = cascade(bev)
        return bev
