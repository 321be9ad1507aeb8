"""Convolutions of a CenterHead, and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception3d.layers.conv_norm import conv_norm

# Bias that starts the heat maps at p = 0.1, so that the many empty cells do not swamp the loss
# (Focal Loss, ICCV 2017, section 3.3).
HEATMAP_BIAS = -2.19


@dataclass(frozen=True)
class TaskOutput:
    """Raw predictions of one task.

    Attributes:
        center: (B, 2, H, W) x, y of the centre inside its cell, cells.
        center_z: (B, 1, H, W) z of the centre, m.
        dim: (B, 3, H, W) logarithm of length, width, height in m.
        rot: (B, 2, H, W) cos and sin of the yaw, of any length.
        hm: (B, K, H, W) heat map logits.
        vel: (B, 2, H, W) vx, vy, m/s, None without that branch.
        iou: (B, 1, H, W) expected 3-D IoU of the box, as 2 IoU - 1, None without that branch.
    """

    center: Tensor
    center_z: Tensor
    dim: Tensor
    rot: Tensor
    hm: Tensor
    vel: Tensor | None = None
    iou: Tensor | None = None

    @property
    def codes(self) -> tuple[Tensor, ...]:
        """The maps that make up a box code, in the order of `TaskTargets.codes`."""
        box = (self.center, self.center_z, self.dim, self.rot)
        return box if self.vel is None else (*box, self.vel)


@dataclass(frozen=True)
class CenterHeadOutput:
    """Raw predictions of a CenterHead.

    Attributes:
        tasks: one per task.
    """

    tasks: tuple[TaskOutput, ...]

    @property
    def batch_size(self) -> int:
        """Number of frames."""
        return self.tasks[0].hm.shape[0]


@dataclass(frozen=True)
class CenterLayers:
    """Shape of the convolutions; the defaults are those of DSVT on Waymo but for `velocity`.

    Attributes:
        velocity: predict velocities.
        iou: predict the IoU of each box, to correct its score.
        shared_channels: width of the convolution that all branches share, and of the branches.
        num_convs: convolutions of a branch, the last one included; without the shared one.
        kernel_size: of all convolutions, odd.
        bias_before_norm: convolutions before a BatchNorm have a bias (OpenPCDet's CenterPoint).
        norm_eps, norm_momentum: of the BatchNorms.

    Raises:
        ValueError: settings that make no network.
    """

    velocity: bool = True
    iou: bool = False
    shared_channels: int = 64
    num_convs: int = 2
    kernel_size: int = 3
    bias_before_norm: bool = False
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        if self.num_convs < 1 or self.shared_channels < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                "CenterLayers: num_convs and shared_channels must be >= 1 and kernel_size odd, got "
                f"{self.num_convs}, {self.shared_channels} and {self.kernel_size}"
            )

    def channels_of_branch(self, num_classes: int) -> dict[str, int]:
        """Return the width of each branch of a task, in the order of official checkpoints."""
        branches = {"center": 2, "center_z": 1, "dim": 3, "rot": 2}
        if self.velocity:
            branches["vel"] = 2
        if self.iou:
            branches["iou"] = 1
        return {**branches, "hm": num_classes}

    def block(self, in_channels: int) -> "ConvNorm":
        """Return convolution, BatchNorm and ReLU to `shared_channels`."""
        return ConvNorm(in_channels, self)


class ConvNorm(nn.Module):
    """Convolution - BatchNorm - ReLU.

    Args:
        in_channels: width of the input.
        layers: width of the output, kernel size, bias and BatchNorm settings.
    """

    def __init__(self, in_channels: int, layers: CenterLayers) -> None:
        super().__init__()
        width, kernel = layers.shared_channels, layers.kernel_size
        self.conv = nn.Conv2d(
            in_channels, width, kernel, padding=kernel // 2, bias=layers.bias_before_norm
        )
        self.norm = nn.BatchNorm2d(width, eps=layers.norm_eps, momentum=layers.norm_momentum)

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, width, H, W)."""
        return conv_norm(self.conv, self.norm, bev, relu=True)


class CenterBranches(nn.Module):
    """The branches of one task.

    Args:
        num_classes: classes K of the task.
        layers: shape of the convolutions.
    """

    def __init__(self, num_classes: int, layers: CenterLayers) -> None:
        super().__init__()
        width, kernel = layers.shared_channels, layers.kernel_size
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    *(layers.block(width) for _ in range(layers.num_convs - 1)),
                    nn.Conv2d(width, channels, kernel, padding=kernel // 2),
                )
                for name, channels in layers.channels_of_branch(num_classes).items()
            }
        )
        self._initialise()

    def _initialise(self) -> None:
        for name, branch in self.branches.items():
            for module in branch.modules():
                if isinstance(module, nn.Conv2d) and name != "hm":
                    nn.init.kaiming_normal_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            if name == "hm":
                last = list(branch.children())[-1]
                assert isinstance(last, nn.Conv2d)
                assert last.bias is not None
                nn.init.constant_(last.bias, HEATMAP_BIAS)

    def forward(self, bev: Tensor) -> TaskOutput:
        """Predict from the shared map (B, shared_channels, H, W)."""
        return TaskOutput(**{name: branch(bev) for name, branch in self.branches.items()})


def gather_cells(maps: Sequence[Tensor], cells: Tensor) -> Tensor:
    """Read maps at cells.

    Args:
        maps: each (B, C, H, W).
        cells: (B, S) int64, y * W + x.

    Returns:
        (B, S, sum of C).
    """
    rows = [
        part.flatten(2).gather(2, cells[:, None].expand(-1, part.shape[1], -1)) for part in maps
    ]
    return torch.cat(rows, dim=1).transpose(1, 2)
