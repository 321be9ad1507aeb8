"""Sparse 3-D convolutions on SparseVoxels, and the blocks that are made of them."""

import math

import torch
from torch import Tensor, nn

from perception3d.layers.normalization import RowBatchNorm, affine_of
from perception3d.layers.residual import add_residual, relu_of
from perception3d.layers.sparse_kernel import Cells, Kernel
from perception3d.layers.sparse_rules import rule_book
from perception3d.structures import SparseVoxels

# Scale and shift (out_channels,) of a norm that follows.
Affine = tuple[Tensor, Tensor]

# As in OpenPCDet, pcdet/models/backbones_3d/spconv_backbone.py
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01


class _SparseConv(nn.Module):
    """Weights of a sparse convolution, laid out as spconv 2.x stores them.

    Attributes:
        weight: (out_channels, kz, ky, kx, in_channels).
        bias: (out_channels,) or None.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel, bias: bool) -> None:
        super().__init__()
        if min(in_channels, out_channels, *kernel.size, *kernel.stride) < 1:
            raise ValueError(
                f"{type(self).__name__}: widths, kernel sizes and strides must be >= 1, got "
                f"{in_channels} -> {out_channels}, kernel {kernel.size}, stride {kernel.stride}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel.size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        bound = 1 / math.sqrt(in_channels * kernel.volume)  # as torch's convolutions
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel={self.kernel.size}, "
            f"stride={self.kernel.stride}, padding={self.kernel.padding}, "
            f"bias={self.bias is not None}"
        )

    def _convolve(
        self,
        features: Tensor,
        rules: SparseVoxels,
        affine: Affine | None,
        *,
        transposed: bool = False,
    ) -> Tensor:
        """Convolve in the dtype of the features, with the norm that follows taken in."""
        if features.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__}: features must be (N, {self.in_channels}), "
                f"got {tuple(features.shape)}"
            )
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if affine is not None:
            scale, shift = affine
            weight = weight * scale.view(-1, 1, 1, 1, 1)
            bias = shift if bias is None else torch.addcmul(shift, bias, scale)
        bias = None if bias is None else bias.to(features.dtype)
        book = rule_book(rules, self.kernel)
        return book.convolve(features, weight.to(features.dtype), bias, transposed)


class SubMConv3d(_SparseConv):
    """Submanifold convolution: out[p] = sum_k W_k in[p + k - centre] at occupied cells p only.

    Args:
        in_channels, out_channels: widths.
        kernel: odd kernel size, one number or order z, y, x.
        bias: add a bias per channel.

    Raises:
        ValueError: an even kernel size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | Cells = 3, *, bias: bool = False
    ) -> None:
        size = as_cells(kernel)
        if any(cells % 2 == 0 for cells in size):
            raise ValueError(f"SubMConv3d: kernel sizes must be odd, got {size} (z, y, x)")
        super().__init__(in_channels, out_channels, Kernel(size, submanifold=True), bias)

    def forward(self, voxels: SparseVoxels, *, affine: Affine | None = None) -> SparseVoxels:
        """Map N voxels with `in_channels` to the same N with `out_channels`.

        With `affine` results are scaled and shifted per channel, at no cost.
        """
        return voxels.with_features(self._convolve(voxels.features, voxels, affine))


class SparseConv3d(_SparseConv):
    """Convolution whose outputs are all cells that see at least one voxel.

    out[o] = sum_k W_k in[o * stride - padding + k].  Layers of equal geometry on the same
    coordinates share rule book and output coordinates.  Output rows ascend by (b, z, y, x).

    Args:
        in_channels, out_channels: widths.
        kernel, stride, padding: one number or order z, y, x.
        bias: add a bias per channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Cells,
        stride: int | Cells = 1,
        padding: int | Cells = 0,
        *,
        bias: bool = False,
    ) -> None:
        geometry = Kernel(as_cells(kernel), as_cells(stride), as_cells(padding))
        super().__init__(in_channels, out_channels, geometry, bias)

    def forward(self, voxels: SparseVoxels, *, affine: Affine | None = None) -> SparseVoxels:
        """Map N voxels with `in_channels` to M voxels of the coarser grid with `out_channels`.

        With `affine` results are scaled and shifted per channel, at no cost.
        """
        features = self._convolve(voxels.features, voxels, affine)
        rules = rule_book(voxels, self.kernel)
        return SparseVoxels(
            features, rules.coords, rules.spatial_shape, voxels.batch_size, rules.cache
        )


class InverseConv3d(_SparseConv):
    """The way back of a SparseConv3d: out[p] = sum of W_k in[o] over its pairs (p, o, k).

    Args:
        in_channels, out_channels: widths.
        kernel, stride, padding: those of the SparseConv3d to undo.
        bias: add a bias per channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Cells,
        stride: int | Cells = 1,
        padding: int | Cells = 0,
        *,
        bias: bool = False,
    ) -> None:
        geometry = Kernel(as_cells(kernel), as_cells(stride), as_cells(padding))
        super().__init__(in_channels, out_channels, geometry, bias)

    def forward(
        self, voxels: SparseVoxels, target: SparseVoxels, *, affine: Affine | None = None
    ) -> SparseVoxels:
        """Map M voxels back to the N that a SparseConv3d made them of.

        Args:
            voxels: result of a SparseConv3d of equal geometry on `target`, in its row order.
            target: what that convolution was given; its features play no part.
            affine: scale and shift of the results per channel, at no cost.

        Raises:
            ValueError: `voxels` does not come from `target`.
        """
        coords = rule_book(target, self.kernel).coords
        if voxels.coords is not coords:
            raise ValueError(
                "InverseConv3d: voxels must keep the coordinates that a SparseConv3d with kernel "
                f"{self.kernel.size}, stride {self.kernel.stride}, padding {self.kernel.padding} "
                f"made of target, got {voxels.num_voxels} other voxels"
            )
        features = self._convolve(voxels.features, target, affine, transposed=True)
        return target.with_features(features)


class SparseConvBlock(nn.Module):
    """Convolution - BatchNorm - ReLU.

    Args:
        conv: convolution; further arguments of `forward` go to it.
        eps, momentum: of the BatchNorm.
    """

    def __init__(
        self, conv: _SparseConv, *, eps: float = NORM_EPS, momentum: float = NORM_MOMENTUM
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = RowBatchNorm(conv.out_channels, eps=eps, momentum=momentum)

    def forward(self, voxels: SparseVoxels, *target: SparseVoxels) -> SparseVoxels:
        """Map voxels as the convolution does."""
        voxels = _normalised(self.conv, self.norm, voxels, *target)
        return voxels.with_features(relu_of(voxels.features))


class SparseResidualBlock(nn.Module):
    """Submanifold convolution - BN - ReLU - convolution - BN, plus the input, ReLU.

    Args:
        channels: width.
        kernel: odd kernel size, one number or order z, y, x.
        bias: biases in both convolutions.
        eps, momentum: of the BatchNorms.
    """

    def __init__(
        self,
        channels: int,
        kernel: int | Cells = 3,
        *,
        bias: bool = True,
        eps: float = NORM_EPS,
        momentum: float = NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        self.conv1 = SubMConv3d(channels, channels, kernel, bias=bias)
        self.norm1 = RowBatchNorm(channels, eps=eps, momentum=momentum)
        self.conv2 = SubMConv3d(channels, channels, kernel, bias=bias)
        self.norm2 = RowBatchNorm(channels, eps=eps, momentum=momentum)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Map N voxels with `channels` to the same N."""
        inner = _normalised(self.conv1, self.norm1, voxels)
        inner = inner.with_features(relu_of(inner.features))
        inner = _normalised(self.conv2, self.norm2, inner)
        return voxels.with_features(relu_of(add_residual(inner.features, voxels.features)))


class SparseSkipBlock(nn.Module):
    """Submanifold convolution - BN, plus the input, ReLU.

    Args:
        channels: width.
        kernel: odd kernel size, one number or order z, y, x.
        eps, momentum: of the BatchNorm.
    """

    def __init__(
        self,
        channels: int,
        kernel: int | Cells = 3,
        *,
        eps: float = NORM_EPS,
        momentum: float = NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        self.conv = SubMConv3d(channels, channels, kernel, bias=True)
        self.norm = RowBatchNorm(channels, eps=eps, momentum=momentum)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Map N voxels with `channels` to the same N."""
        inner = _normalised(self.conv, self.norm, voxels)
        return voxels.with_features(relu_of(add_residual(inner.features, voxels.features)))


def _normalised(conv: _SparseConv, norm: RowBatchNorm, *voxels: SparseVoxels) -> SparseVoxels:
    """Convolve and normalise; without gradients the norm is part of the weights."""
    affine = affine_of(norm)
    result: SparseVoxels = conv(*voxels, affine=affine)
    return result.with_features(norm(result.features)) if affine is None else result


def as_cells(value: int | Cells) -> Cells:
    """Return three cell counts (z, y, x) from one number or three."""
    if isinstance(value, int):
        return value, value, value
    z, y, x = value
    return z, y, x
