"""First block of a dense network, computed where voxels are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.layers.normalization import affine_of
from perception3d.models.necks.residual_block import ResidualBlock
from perception3d.ops.linear import linear
from perception3d.ops.sparse_conv import sparse_conv
from perception3d.ops.sparse_index import sparse_index
from perception3d.structures import SparseVoxels

# Cells per voxel from which on a row that is gathered costs less than the empty ones around it.
_FEWEST_CELLS = 3


def takes_voxels(block: ResidualBlock, voxels: SparseVoxels) -> bool:
    """Say whether `enter_map` can compute a block, and is worth it.

    In evaluation on the CPU, from a grid of one layer that is mostly empty.
    """
    depth, height, width = voxels.spatial_shape
    features, conv = voxels.features, block.conv1
    return (
        not (block.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and not (torch.compiler.is_compiling() or torch._C._get_tracing_state())
        and features.device.type == "cpu"
        and features.dtype == conv.weight.dtype == torch.float32
        and features.shape[1] == conv.in_channels
        and conv.stride == (1, 1)
        and isinstance(block.shortcut, nn.Sequential)
        and depth == 1
        and _FEWEST_CELLS * voxels.num_voxels < voxels.batch_size * height * width
    )


def enter_map(block: ResidualBlock, voxels: SparseVoxels) -> Tensor:
    """Compute block(scatter_to_bev(voxels)) up to rounding; see `takes_voxels`.

    The first convolution and the shortcut give the same everywhere but near voxels: what the norm
    makes of zero.

    Args:
        block: first block of a dense network, of stride 1, with a projection.
        voxels: N voxels on a grid of one layer, (1, H, W).

    Returns:
        (B, C, H, W) in channels-last memory.
    """
    conv1, conv2 = block.conv1, block.conv2
    assert isinstance(block.shortcut, nn.Sequential)
    project, project_norm = block.shortcut
    (scale1, shift1), (scale2, shift2) = _affine(block.norm1), _affine(block.norm2)
    scale, shift = _affine(project_norm)
    near, inputs, outputs = sparse_index(
        voxels.coords, voxels.batch_size, voxels.spatial_shape, (1, 3, 3), (1, 1, 1), (0, 1, 1)
    )
    weight = (conv1.weight * scale1.view(-1, 1, 1, 1)).permute(2, 3, 1, 0).flatten(0, 1)
    rows = sparse_conv(voxels.features, inputs, outputs, weight.contiguous(), shift1)
    _, height, width = voxels.spatial_shape
    canvas = torch.relu(shift1).repeat(voxels.batch_size * height * width, 1)
    frame, _, y, x = near.long().unbind(1)
    canvas[(frame * height + y) * width + x] = torch.relu_(rows)
    inner = canvas.view(voxels.batch_size, height, width, -1).permute(0, 3, 1, 2)
    bev = F.conv2d(inner, conv2.weight * scale2.view(-1, 1, 1, 1), shift2 + shift, padding=1)
    assert isinstance(project, nn.Conv2d)
    own = linear(voxels.features, project.weight.flatten(1) * scale[:, None])
    frame, _, y, x = voxels.coords.long().unbind(1)
    bev[frame, :, y, x] += own
    return torch.relu_(bev)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)  # ours of several processes too
    affine = affine_of(norm)
    assert affine is not None
    return affine
