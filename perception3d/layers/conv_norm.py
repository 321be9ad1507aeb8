"""A convolution and the norm behind it, as one convolution where that gives the same."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.layers.normalization import affine_of

Convolution = nn.Conv2d | nn.ConvTranspose2d


def conv_norm(
    conv: Convolution, norm: nn.modules.batchnorm._BatchNorm, bev: Tensor, *, relu: bool = False
) -> Tensor:
    """Compute norm(conv(bev)), then ReLU if asked, up to rounding.

    In evaluation on the CPU, without gradients, the norm is part of the weight and ReLU works in
    place: large maps then pass through memory once, where they would do so three times.

    Args:
        conv: plain or transposed convolution, undilated, of one group.
        norm: batch norm behind it.
        bev: (B, C, H, W).
        relu: whether ReLU follows.

    Returns:
        (B, out_channels, H', W').
    """
    affine = affine_of(norm) if _can_fold(conv, bev) else None
    if affine is None:
        result: Tensor = norm(conv(bev))
        return torch.relu(result) if relu else result
    scale, shift = affine
    bias = shift if conv.bias is None else torch.addcmul(shift, conv.bias, scale)
    result = _convolve(conv, bev, scale, bias)
    return torch.relu_(result) if relu else result


class NormedConv(nn.Sequential):
    """Convolution, batch norm and, if asked, ReLU: nn.Sequential by the way of `conv_norm`.

    Args:
        conv, norm: see `conv_norm`.
        relu: whether ReLU follows.
    """

    def __init__(
        self, conv: Convolution, norm: nn.modules.batchnorm._BatchNorm, *, relu: bool = False
    ) -> None:
        super().__init__(conv, norm, *([nn.ReLU()] if relu else []))

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H', W')."""
        conv, norm = self[0], self[1]
        assert isinstance(conv, Convolution)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        return conv_norm(conv, norm, bev, relu=len(self) > 2)


def _can_fold(conv: Convolution, bev: Tensor) -> bool:
    return (
        bev.device.type == "cpu"
        and bev.dtype == conv.weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not (torch.compiler.is_compiling() or torch._C._get_tracing_state())
    )


def _convolve(conv: Convolution, bev: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Convolve with every output channel scaled."""
    if not isinstance(conv, nn.ConvTranspose2d):
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        return F.conv2d(bev, weight, bias, conv.stride, conv.padding)
    weight = conv.weight * scale.view(1, -1, 1, 1)
    if conv.kernel_size == conv.stride == (1, 1):  # torch has no fast path for it
        return F.conv2d(bev, weight.transpose(0, 1), bias)
    return F.conv_transpose2d(bev, weight, bias, conv.stride)
