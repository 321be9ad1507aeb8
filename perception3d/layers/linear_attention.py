"""Linear attention inside windows, and the convolutions that link windows (ScatterFormer)."""

import torch
from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.ops.depthwise_conv import depthwise_conv
from perception3d.ops.scattered_linear_attention import scattered_linear_attention_qkv
from perception3d.structures import SparseVoxels

DEPTHWISE_INITS = ("zero", "normal")


class ScatteredAttention(nn.Module):
    """Multi-head linear attention of every voxel to the voxels of its window.

    Args:
        channels: width C, a multiple of `heads`.
        heads: attention heads H.
        epsilon: added to the denominator.

    Raises:
        ValueError: C is no multiple of H.
    """

    def __init__(self, channels: int, heads: int, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                "ScatteredAttention: channels must be a multiple of heads, "
                f"got {channels} and {heads}"
            )
        self.heads = heads
        self.epsilon = epsilon
        self.qkv = RowLinear(channels, 3 * channels, bias=False)
        self.out = RowLinear(channels, channels)

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Attend.

        Args:
            features: (N, C), rows sorted by window.
            offsets: (W + 1,) int64, window w holds the rows offsets[w]:offsets[w + 1].

        Returns:
            (N, C).
        """
        result: Tensor = self.out(self.attend(self.qkv(features), offsets))
        return result

    def attend(self, qkv: Tensor, offsets: Tensor) -> Tensor:
        """Mix projected rows (N, 3 C), query, key, value side by side, to (N, C)."""
        count, columns = qkv.shape
        split = qkv.view(count, 3, self.heads, columns // (3 * self.heads))
        mixed = scattered_linear_attention_qkv(split, offsets, epsilon=self.epsilon)
        return mixed.view(count, columns // 3)


class CrossWindowConv(nn.Module):
    """Depth-wise submanifold convolutions of three shapes, one per quarter of the channels.

    The first quarter sees the 3 x 3 x 3 neighbours, the second a line along x, the third a line
    along y; the last is passed on.  The input is added, so the last quarter is doubled.

    Args:
        channels: width C, a multiple of 4.
        length: odd number of cells of the lines.
        init: of the weights; the published results began with "zero", the later code with
            "normal", whose sum over 27 neighbours amplifies what it is given.

    Attributes:
        near: (3, 3, 3, C / 4); order of all kernels z, y, x.
        along_x: (1, 1, length, C / 4).
        along_y: (1, length, 1, C / 4).

    Raises:
        ValueError: C is no multiple of 4, an even length, or an unknown initialisation.
    """

    def __init__(self, channels: int, length: int, *, init: str = "zero") -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"CrossWindowConv: channels must be a multiple of 4, got {channels}")
        if length < 1 or length % 2 == 0:
            raise ValueError(f"CrossWindowConv: length must be odd, got {length}")
        if init not in DEPTHWISE_INITS:
            raise ValueError(
                f"CrossWindowConv: init must be one of {DEPTHWISE_INITS}, got {init!r}"
            )
        group = channels // 4
        self.near = nn.Parameter(torch.zeros(3, 3, 3, group))
        self.along_x = nn.Parameter(torch.zeros(1, 1, length, group))
        self.along_y = nn.Parameter(torch.zeros(1, length, 1, group))
        if init == "normal":
            for weight in self.parameters():
                nn.init.normal_(weight)

    def forward(self, voxels: SparseVoxels) -> Tensor:
        """Map the features (N, C) of voxels to (N, C)."""
        features = voxels.features
        weights = (self.near, self.along_x, self.along_y)
        kernels = [
            (voxels.neighbours(_size(weight)), weight.to(features.dtype), number * weight.shape[3])
            for number, weight in enumerate(weights)
        ]
        return depthwise_conv(features, kernels, residual=True)


def _size(weight: Tensor) -> tuple[int, int, int]:
    z, y, x, _ = weight.shape
    return z, y, x
