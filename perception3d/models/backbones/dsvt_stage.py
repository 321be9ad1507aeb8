"""How DSVT's grid, windows and shifts work out, stage by stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perception3d.structures import WindowSpec

Cells = tuple[int, int, int]


@dataclass(frozen=True)
class DSVTStage:
    """Settings of one stage; every triple is in order x, y, z.

    Attributes:
        window: window size of partition 0 in cells; partition 1 has it times the hybrid factor.
        set_size: slots S of a set.
        blocks: number of blocks; each has two layers.
        shifts: cells added before the division, of partition 0 and 1; None: zero, and half of
            `window` in x and y.
        pool_stride: cells per cell of the next stage; None for the last stage.

    Raises:
        ValueError: not three axes, or a count below 1.
    """

    window: Cells
    set_size: int
    blocks: int = 1
    shifts: tuple[Cells, Cells] | None = None
    pool_stride: Cells | None = None

    def __post_init__(self) -> None:
        _check_cells("window", self.window, minimum=1)
        if self.pool_stride is not None:
            _check_cells("pool_stride", self.pool_stride, minimum=1)
        if self.shifts is not None:
            if len(self.shifts) != 2:
                raise ValueError(
                    f"DSVTStage: shifts must be one (x, y, z) for each of the two partitions, "
                    f"got {self.shifts}"
                )
            for shift in self.shifts:
                _check_cells("shifts", shift)
        if self.set_size < 1 or self.blocks < 1:
            raise ValueError(
                f"DSVTStage: set_size and blocks must be >= 1, got {self.set_size} and "
                f"{self.blocks}"
            )

    def partitions(self, grid: Cells, hybrid_factor: Cells) -> tuple[WindowSpec, WindowSpec]:
        """Return the two partitions of this stage on a grid (x, y, z) as window specs (z, y, x).

        Where a window spans the grid in z, it is not shifted in z.
        """
        width, height, _ = self.window
        shifts = self.shifts or ((0, 0, 0), (width // 2, height // 2, 0))
        scales = ((1, 1, 1), hybrid_factor)
        first, second = (
            _partition(self.window, scale, shift, grid)
            for scale, shift in zip(scales, shifts, strict=True)
        )
        return first, second


def _partition(window: Cells, scale: Cells, shift: Cells, grid: Cells) -> WindowSpec:
    x, y, z = (cells * factor for cells, factor in zip(window, scale, strict=True))
    return WindowSpec((z, y, x), (0 if grid[2] == z else shift[2], shift[1], shift[0]))


def check_partition(spec: WindowSpec, grid: Cells) -> None:
    """Check that a network can work on a partition of a grid (x, y, z).

    Raises:
        ValueError: a window of one cell in z on a grid of several or the reverse (the position
            embedding of such a stage has another width), or a shift beyond the window.
    """
    if (grid[2] > 1) != (spec.size[0] > 1):
        raise ValueError(
            f"DSVT: a window of {spec.size[0]} cells in z does not go with a grid of {grid[2]}; "
            "both must be 1 or both above 1"
        )
    if any(abs(step) > cells for step, cells in zip(spec.shift, spec.size, strict=True)):
        raise ValueError(
            f"DSVT: a shift must not exceed its window, got {spec.shift} for {spec.size} (z, y, x)"
        )


def stage_grids(grid: Cells, strides: Sequence[Cells]) -> list[Cells]:
    """Return the grid (x, y, z) of every stage: the first one, then ceil(grid / stride) each."""
    grids = [grid]
    for stride in strides:
        x, y, z = (math.ceil(size / step) for size, step in zip(grids[-1], stride, strict=True))
        grids.append((x, y, z))
    return grids


def check_stages(grid: Cells, stages: Sequence[DSVTStage], hybrid_factor: Cells) -> list[Cells]:
    """Check that the stages fit each other and the grid; return the grid of every stage.

    Raises:
        ValueError: what does not fit.
    """
    _check_cells("grid_size", grid, minimum=1)
    grid = (grid[0], grid[1], grid[2])
    _check_cells("hybrid_factor", hybrid_factor, minimum=1)
    if not stages:
        raise ValueError("DSVT: stages must hold at least one DSVTStage")
    strides = [stage.pool_stride for stage in stages[:-1] if stage.pool_stride is not None]
    if len(strides) != len(stages) - 1 or stages[-1].pool_stride is not None:
        raise ValueError(
            "DSVT: every stage but the last must have a pool_stride, got "
            f"{[stage.pool_stride for stage in stages]}"
        )
    grids = stage_grids(grid, strides)
    for cells in grids:
        if cells[2] >= cells[0]:
            raise ValueError(
                f"DSVT: the grid (x, y, z) must have fewer cells in z than in x, got {cells}; "
                "is it in order z, y, x?"
            )
    return grids


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless a setting has one of its known values."""
    if value not in known:
        raise ValueError(f"DSVT: {name} must be one of {known}, got {value!r}")


def _check_cells(name: str, cells: Sequence[int], minimum: int | None = None) -> None:
    whole = len(cells) == 3 and all(isinstance(size, int) for size in cells)
    if not whole or (minimum is not None and min(cells) < minimum):
        bound = "" if minimum is None else f" >= {minimum}"
        raise ValueError(f"DSVT: {name} must be three whole numbers{bound} (x, y, z), got {cells}")
