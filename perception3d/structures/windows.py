"""Index tables that group voxels: windows, and the sets that DSVT cuts windows into."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WindowSpec:
    """How a grid is cut into windows.

    A voxel at cell c lies in window floor((c + shift) / size), per axis.

    Attributes:
        size: window size in cells, order z, y, x.
        shift: cells added before the division, order z, y, x.
        axis_order: window axes from slowest to fastest in the numbering of windows, after the
            batch index: "xyz" (DSVT) or "zyx" (ScatterFormer).

    Raises:
        ValueError: a size below 1, or an unknown axis order.
    """

    size: tuple[int, int, int]
    shift: tuple[int, int, int] = (0, 0, 0)
    axis_order: str = "xyz"

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(
                f"WindowSpec: size must be three cell counts >= 1 (z, y, x), got {self.size}"
            )
        if len(self.shift) != 3:
            raise ValueError(
                f"WindowSpec: shift must be three cell counts (z, y, x), got {self.shift}"
            )
        if self.axis_order not in ("xyz", "zyx"):
            raise ValueError(
                f"WindowSpec: axis_order must be 'xyz' or 'zyx', got {self.axis_order!r}"
            )


@dataclass(frozen=True)
class Windows:
    """The windows of one frame batch that hold at least one voxel.

    Attributes:
        window_of_voxel: (N,) int64, number of the window of each voxel, 0..W-1.
        order: (N,) int64 permutation of the voxels, stable, windows ascending.
        offsets: (W + 1,) int64, window w holds the voxels order[offsets[w]:offsets[w + 1]].
        cell_in_window: (N, 3) int32, cell of each voxel inside its window, order z, y, x.
        spec: the cut that made them.
    """

    window_of_voxel: Tensor
    order: Tensor
    offsets: Tensor
    cell_in_window: Tensor
    spec: WindowSpec

    @property
    def num_windows(self) -> int:
        """Number of non-empty windows."""
        return self.offsets.shape[0] - 1


@dataclass(frozen=True)
class SetPartition:
    """Sets of equal slot count, in two sort orders (Haiyang-W/DSVT: dsvt_input_layer.py).

    Dimension 0 of the tables: 0 = y-major order (y, x, z), 1 = x-major order (x, y, z).

    Attributes:
        voxel_of_slot: (2, sets, S) int64, voxel row in each slot. A window with too few voxels
            repeats some of them, in adjacent slots.
        repeated: (2, sets, S) bool, true where a slot repeats the voxel of the slot before it.
        slot_of_voxel: (2, N) int64, first slot (set * S + slot) that holds each voxel.
        order: (2, N) int64, the true members of the sets, set by set.
        offsets: (sets + 1,) int64, set s holds the voxels order[:, offsets[s]:offsets[s + 1]].
    """

    voxel_of_slot: Tensor
    repeated: Tensor
    slot_of_voxel: Tensor
    order: Tensor
    offsets: Tensor
