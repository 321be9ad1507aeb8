"""Gaussian peaks on heat maps."""

import torch
from torch import Tensor


def gaussian_radius(length: Tensor, width: Tensor, overlap: float) -> Tensor:
    """Return the radius of the Gaussian of boxes, cells.

    The least of three radii, each for one way of shifting two corners so that the IoU is still
    `overlap`.  Differs: the roots of the quadratic equations are not divided by their leading
    coefficients; the error of the CornerNet code (Law and Deng, ECCV 2018) has become the rule.

    Args:
        length, width: (M,) sides in cells, > 0.
        overlap: IoU in (0, 1).
    """
    total, area = length + width, length * width
    product = area * (1 - overlap) / (1 + overlap)
    inner = (total + (total**2 - 4 * product).sqrt()) / 2
    mixed = (2 * total + (4 * total**2 - 16 * (1 - overlap) * area).sqrt()) / 2
    root = (4 * overlap**2 * total**2 + 16 * overlap * (1 - overlap) * area).sqrt()
    outer = (-2 * overlap * total + root) / 2
    return torch.minimum(torch.minimum(inner, mixed), outer)


def draw_gaussians(
    shape: tuple[int, int, int], plane: Tensor, cell: Tensor, radius: Tensor
) -> Tensor:
    """Draw Gaussians into zero planes, the larger value winning where they meet.

    The value at distance d is exp(-d^2 / 2 s^2) with s = (2 radius + 1) / 6, inside a square
    window of the radius.  Its corners are at least exp(-9), above every float's epsilon, so
    nothing small is left to cut.

    Args:
        shape: (planes, H, W).
        plane: (M,) int64.
        cell: (M, 2) int64 x, y inside the map; its value becomes exactly 1.
        radius: (M,) int, cells, >= 0.

    Returns:
        Planes of that shape, float32.
    """
    _, height, width = shape
    radius = radius.long()
    low = (cell - radius[:, None]).clamp(min=0)
    high = torch.minimum(cell + radius[:, None], cell.new_tensor([width - 1, height - 1]))
    columns, rows = (high - low + 1).unbind(1)
    counts = columns * rows
    # One row per pair of box and cell of its window.
    box = torch.repeat_interleave(counts)
    place = torch.arange(box.shape[0], device=box.device) - (counts.cumsum(0) - counts)[box]
    x = low[box, 0] + place % columns[box]
    y = low[box, 1] + place // columns[box]
    squared = ((x - cell[box, 0]) ** 2 + (y - cell[box, 1]) ** 2).float()
    sigma = (2 * radius + 1).float() / 6
    value = torch.exp(-squared / (2 * sigma * sigma)[box])
    canvas = torch.zeros(shape, device=cell.device)
    index = (plane[box] * height + y) * width + x
    canvas.view(-1).scatter_reduce_(0, index, value, "amax")
    return canvas
