"""Residual block of the dense networks on bird's-eye-view maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.layers.conv_norm import NormedConv, conv_norm
from perception3d.layers.residual import add_residual

# oneDNN's gradient of the weight of a strided 1x1 convolution writes past its memory where a
# channels-last map has fewer channels than a vector has numbers (uxlfoundation/oneDNN, issue 6035).
_SAFE_CHANNELS = 16
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01


class ResidualBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU.

    Args:
        in_channels, out_channels: widths.
        stride: of the first convolution.
        project: shortcut through conv1x1 - BN; needed where stride or width changes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, project: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = map_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = map_norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = NormedConv(
                Projection(in_channels, out_channels, 1, stride, bias=False), map_norm(out_channels)
            )

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        inner = conv_norm(self.conv1, self.norm1, bev, relu=True)
        inner = conv_norm(self.conv2, self.norm2, inner)
        result = add_residual(inner, self.shortcut(bev))
        return F.relu(result, inplace=not torch.is_grad_enabled())


class Projection(nn.Conv2d):
    """nn.Conv2d for kernels of one cell, also for maps of a few channels on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        if input.device.type != "cpu" or self.in_channels >= _SAFE_CHANNELS:
            return super().forward(input)
        along_y, along_x = self.stride
        return F.conv2d(input[..., ::along_y, ::along_x], self.weight, self.bias)


def map_norm(channels: int) -> nn.BatchNorm2d:
    """Return the norm that all dense networks here have."""
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
