"""Sparse voxels to a dense bird's-eye-view (BEV) map, and the residual network on it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception3d.checks import FLOATS, check_tensor
from perception3d.layers.conv_norm import Convolution, NormedConv
from perception3d.models.necks.residual_block import ResidualBlock, map_norm
from perception3d.models.necks.sparse_entry import enter_map, takes_voxels
from perception3d.structures import SparseVoxels


def scatter_to_bev(voxels: SparseVoxels) -> Tensor:
    """Lay voxel features out on a dense map; cells without a voxel are zero.

    Args:
        voxels: N voxels with C channels on a grid of (D, H, W) cells, z, y, x.

    Returns:
        (B, C * D, H, W), channel c * D + z, in channels-last memory; frames without voxels are
        zero maps.
    """
    depth, height, width = voxels.spatial_shape
    channels = voxels.features.shape[1]
    frame, z, y, x = voxels.coords.long().unbind(1)
    canvas = voxels.features.new_zeros(voxels.batch_size * height * width, channels, depth)
    # Voxels are unique, so nothing is written twice and the result has no order to depend on.
    canvas[(frame * height + y) * width + x, :, z] = voxels.features
    shape = (voxels.batch_size, height, width, channels * depth)
    return canvas.view(shape).permute(0, 3, 1, 2)


class BevBackbone(nn.Module):
    """Dense map and residual 2-D network: levels of falling resolution, joined at one resolution.

    Level i is a block with a projection shortcut (also at stride 1), then `blocks[i]` plain ones.
    Its result is brought to the output resolution by a transposed convolution with
    kernel = stride, or for upsampling below 1 by a plain strided convolution
    (Haiyang-W/DSVT: pcdet/models/backbones_2d/base_bev_res_backbone.py).

    Args:
        in_channels: channels of the map: channels of a voxel times cells in z.
        blocks: plain blocks per level.
        strides: stride of each level relative to the one before.
        channels: width of each level.
        upsample: upsampling of each level; 0.5 halves the resolution.
        upsample_channels: width of each level's share of the output.

    Attributes:
        stride: cells of the voxel grid per cell of the output, along x and y.
        out_channels: width of the output.

    Raises:
        ValueError: lists of unequal length, or levels that end at different resolutions.
    """

    def __init__(
        self,
        in_channels: int,
        blocks: Sequence[int] = (1, 2, 2),
        strides: Sequence[int] = (1, 2, 2),
        channels: Sequence[int] = (128, 128, 256),
        upsample: Sequence[float] = (1, 2, 4),
        upsample_channels: Sequence[int] = (128, 128, 128),
    ) -> None:
        super().__init__()
        lists = {
            "blocks": blocks,
            "strides": strides,
            "channels": channels,
            "upsample": upsample,
            "upsample_channels": upsample_channels,
        }
        lengths = {name: len(values) for name, values in lists.items()}
        if len(set(lengths.values())) > 1 or not blocks:
            raise ValueError(f"BevBackbone: one entry per level is needed, got {lengths}")
        self.in_channels = in_channels
        self.out_channels = sum(upsample_channels)
        self.total_stride = math.prod(strides)
        self.stride = _output_stride(strides, upsample)
        widths = [in_channels, *channels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(widths[i], widths[i + 1], strides[i], project=True),
                *(ResidualBlock(widths[i + 1], widths[i + 1]) for _ in range(blocks[i])),
            )
            for i in range(len(blocks))
        )
        self.resamplers = nn.ModuleList(
            _resampler(width, out, factor)
            for width, out, factor in zip(channels, upsample_channels, upsample, strict=True)
        )

    def forward(self, voxels: SparseVoxels) -> Tensor:
        """Turn N voxels on a (D, H, W) grid into a map (B, out_channels, H / stride, W / stride).

        Raises:
            ValueError: channels times D is not `in_channels`, or a grid that the strides do not
                divide.
        """
        first = next(self.levels[0].children())
        assert isinstance(first, ResidualBlock)
        if takes_voxels(first, voxels):
            return self._join(enter_map(first, voxels), skip=1)
        return self.refine(scatter_to_bev(voxels))

    def refine(self, bev: Tensor) -> Tensor:
        """Run the 2-D network on a dense map (B, in_channels, H, W); see `forward`."""
        check_tensor("BevBackbone", "bev", bev, ("B", self.in_channels, "H", "W"), FLOATS)
        return self._join(bev)

    def _join(self, bev: Tensor, skip: int = 0) -> Tensor:
        """Run the levels, without the first `skip` blocks, and put their results together."""
        size = tuple(bev.shape[2:])
        parts = []
        for level, resampler in zip(self.levels, self.resamplers, strict=True):
            for block in list(level.children())[skip:]:
                bev = block(bev)
            skip = 0
            parts.append(resampler(bev))
        ends = [tuple(part.shape[2:]) for part in parts]
        if len(set(ends)) > 1:
            raise ValueError(
                f"BevBackbone: map size must be a multiple of {self.total_stride} cells, the "
                f"product of the strides, got (H, W) = {size}; change voxel size or range"
            )
        return torch.cat(parts, dim=1)


def _resampler(in_channels: int, out_channels: int, factor: float) -> NormedConv:
    conv: Convolution
    if factor >= 1:
        size = round(factor)
        conv = nn.ConvTranspose2d(in_channels, out_channels, size, size, bias=False)
    else:
        size = round(1 / factor)
        conv = nn.Conv2d(in_channels, out_channels, size, size, bias=False)
    return NormedConv(conv, map_norm(out_channels), relu=True)


def _output_stride(strides: Sequence[int], upsample: Sequence[float]) -> int:
    """Return the stride of the output; ValueError unless all levels end at the same whole one."""
    ends = [math.prod(strides[: i + 1]) / factor for i, factor in enumerate(upsample)]
    if max(ends) - min(ends) > 1e-6 or abs(ends[0] - round(ends[0])) > 1e-6:
        raise ValueError(
            "BevBackbone: all levels must end at one whole stride (product of strides so far / "
            f"upsample), got {ends}"
        )
    return round(ends[0])
