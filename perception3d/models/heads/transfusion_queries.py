"""Where the queries of a TransFusionHead stand: the peaks of its heat map."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.errors import unknown
from perception3d.models.heads.center_decode import top_values
from perception3d.models.losses import full_precision

_PEAK_WINDOW = 3


@dataclass(frozen=True)
class QueryRule:
    """Which peaks become queries.

    Attributes:
        count: queries Q per frame.
        small_classes: classes whose every cell is a peak: their objects are as small as a cell
            and may stand side by side.
    """

    count: int = 200
    small_classes: Sequence[str] = ("pedestrian", "traffic_cone")

    def check(self, classes: Sequence[str], map_size: tuple[int, int]) -> None:
        """Raise ValueError unless the rule fits the classes and a map of (W, H) cells."""
        for name in self.small_classes:
            if name not in classes:
                raise ValueError(f"QueryRule: {unknown(name, classes, 'class')}")
        width, height = map_size
        if min(width, height) < _PEAK_WINDOW:
            raise ValueError(
                f"QueryRule: a map must have {_PEAK_WINDOW} x {_PEAK_WINDOW} cells or more, "
                f"got (W, H) = {map_size}"
            )
        most = len(classes) * width * height
        if not 1 <= self.count <= most:
            raise ValueError(
                f"QueryRule: count must lie in 1..{most} (classes times cells), got {self.count}"
            )


@dataclass(frozen=True)
class Queries:
    """Q queries per frame, by descending heat.

    Attributes:
        cells: (B, Q) int64, row * columns + column of the cell.
        labels: (B, Q) int64, class of the peak.
        scores: (B, C, Q) heat at the cell, 0 where it is no peak of a class.
    """

    cells: Tensor
    labels: Tensor
    scores: Tensor


def find_peaks(heat: Tensor, every_cell: Tensor) -> Tensor:
    """Return the heat at cells that are the highest of their 3x3 neighbourhood, 0 elsewhere.

    Args:
        heat: (B, C, H, W), >= 0.  A cell at the border has no whole neighbourhood: no peak.
        every_cell: (C,) bool, classes whose every cell is a peak.
    """
    border = _PEAK_WINDOW // 2
    highest = F.pad(F.max_pool2d(heat, _PEAK_WINDOW, stride=1), [border] * 4)
    return heat * ((heat == highest) | every_cell[:, None, None])


@torch.no_grad()
def pick_queries(logits: Tensor, every_cell: Tensor, count: int) -> Queries:
    """Pick the highest peaks over all classes; ties go to the lower class, then the lower cell.

    Args:
        logits: (B, C, H, W) of the heat map.
        every_cell: (C,) bool, classes whose every cell is a peak.
        count: queries Q per frame, at most C * H * W.
    """
    heat = find_peaks(full_precision(logits).sigmoid(), every_cell)
    num_cells = heat[0, 0].numel()
    best = torch.stack([top_values(frame.flatten(), count)[1] for frame in heat])
    cells = best % num_cells
    at_cells = cells[:, None].expand(-1, heat.shape[1], -1)
    return Queries(cells, best // num_cells, heat.flatten(2).gather(2, at_cells))
