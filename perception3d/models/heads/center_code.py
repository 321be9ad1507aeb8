"""Box codes of a CenterHead back to boxes."""

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid

# Beyond e^5 = 148 m nothing is a road user; without a bound an untrained net overflows.
LOG_SIZE_LIMIT = 5.0


def decode_codes(codes: Tensor, cells: Tensor, grid: BevGrid) -> Tensor:
    """Turn codes into boxes; differentiable.

    Args:
        codes: (..., >= 8) float [x, y in the cell, z m, log dx, log dy, log dz, cos, sin, ...].
        cells: (...) int64, y * W + x.
        grid: map of the cells.

    Returns:
        (..., 7) x, y, z, dx, dy, dz in m, yaw in rad; sizes at most e^5 m and at least e^-5 m.
    """
    width = grid.size[0]
    corner = torch.stack([cells % width, cells // width], dim=-1)
    place = grid.to_metres(corner + codes[..., :2])
    sizes = codes[..., 3:6].clamp(-LOG_SIZE_LIMIT, LOG_SIZE_LIMIT).exp()
    yaw = torch.atan2(codes[..., 7:8], codes[..., 6:7])
    return torch.cat([place, codes[..., 2:3], sizes, yaw], dim=-1)
