"""How Voxel Mamba's grid, scales and curves work out, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from perception3d.ops.voxel_grid import voxel_grid_size
from perception3d.structures import CurveSpec

Cells = tuple[int, int, int]

_SHOWN = 3  # decimals of heights in messages


@dataclass(frozen=True)
class VoxelMambaStage:
    """Settings of one stage.

    Attributes:
        blocks: number of dual-scale blocks.
        stride: cells of the full scale per cell of the coarse one, along every axis; a power of
            two. 1: both scales have the same voxels.
        kernel: odd kernel size of the convolutions between the scales.

    Raises:
        ValueError: a setting out of range.
    """

    blocks: int = 2
    stride: int = 1
    kernel: int = 3

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"VoxelMambaStage: blocks must be >= 1, got {self.blocks}")
        if self.stride < 1 or self.stride & (self.stride - 1):
            raise ValueError(
                f"VoxelMambaStage: stride must be a power of two, got {self.stride}: it takes a "
                "whole bit per axis from the curve"
            )
        if self.kernel < self.stride or self.kernel % 2 == 0:
            raise ValueError(
                "VoxelMambaStage: kernel must be odd and not below the stride "
                f"({self.stride}), got {self.kernel}"
            )

    @property
    def padding(self) -> int:
        """Cells that the convolution to the coarse scale adds around the grid."""
        return self.kernel // 2

    def coarse_size(self, cells: int) -> int:
        """Return the size of the coarse scale along an axis."""
        return (cells + 2 * self.padding - self.kernel) // self.stride + 1


def stage_shapes(cells_z: int, height: int, width: int, reductions: Sequence[int]) -> list[Cells]:
    """Return the grid (z, y, x) of every stage and the one after the last.

    The first has an empty cell on top, as released.  A reduction is a convolution over three
    cells in z with stride two, without padding.

    Args:
        cells_z, height, width: voxel grid.
        reductions: halvings after each stage.
    """
    depths = [cells_z + 1]
    for count in reductions:
        depth = depths[-1]
        for _ in range(count):
            depth = (depth - 1) // 2
        depths.append(depth)
    return [(depth, height, width) for depth in depths]


def check_heights(
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    halvings: int,
    dropped_layers: int,
) -> Cells:
    """Check that the halvings in z see the whole grid and leave one cell; return the grid.

    Args:
        voxel_size: x, y, z, m.
        point_cloud_range: x, y, z low, then high, m.
        halvings: convolutions of three cells with stride two in z.
        dropped_layers: layers on top of the grid that may reach no output.

    Raises:
        ValueError: too many or too few layers; names the voxel heights that fit.
    """
    grid = voxel_grid_size(voxel_size, point_cloud_range, owner="VoxelMamba")
    seen = 2 ** (halvings + 1) - 1
    if not 0 <= dropped_layers < seen // 2:  # with more the halvings leave a second cell
        raise ValueError(
            f"VoxelMamba: dropped_layers must lie in 0..{seen // 2 - 1}, got {dropped_layers}"
        )
    low, high = point_cloud_range[2], point_cloud_range[5]
    cells, most = grid[2], seen + dropped_layers
    if seen - 1 <= cells <= most:
        return grid
    fitting = ", ".join(
        f"{round((high - low) / count, _SHOWN)} m ({count})"
        for count in range(seen - 1, max(most, seen) + 1)
    )
    advice = f"Voxel heights that fit {high - low:g} m, with their layers: {fitting}"
    if cells < seen:
        raise ValueError(
            f"VoxelMamba: {cells} voxels in z are too few for {halvings} halvings in z. {advice}"
        )
    lost = cells - seen
    bottom = round(low + seen * (high - low) / cells, _SHOWN)
    raise ValueError(
        f"VoxelMamba: the convolutions in z see {seen} layers of voxels, so the top {lost} of "
        f"{cells} (z >= {bottom} m) would be dropped without a word. {advice}. "
        f"dropped_layers=N allows N more; the published grid, of {seen + 1} layers, has "
        "dropped_layers=1"
    )


def curve_specs(
    stage: VoxelMambaStage, shape: Cells, rank: int, shift: int, kind: str = "hilbert"
) -> tuple[CurveSpec, CurveSpec]:
    """Return the curves of the full and of the coarse scale of a block.

    A stride takes bits from the coarse curve: rank 9 is 8 at stride 2 and 7 at stride 4.

    Raises:
        ValueError: a scale does not fit into its curve; names the smallest rank that does.
    """
    bits = stage.stride.bit_length() - 1
    coarse = max(stage.coarse_size(cells) for cells in shape)
    needed = max((max(shape) + shift - 1).bit_length(), (coarse + shift - 1).bit_length() + bits)
    if rank < needed:
        raise ValueError(
            f"VoxelMamba: a grid of {shape} cells (z, y, x), shifted by {shift}, needs curves of "
            f"rank {needed}, got rank {rank}"
        )
    return CurveSpec(rank, shift, kind), CurveSpec(rank - bits, shift, kind)
