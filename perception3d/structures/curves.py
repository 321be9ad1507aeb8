"""Orders of voxels along a space-filling curve."""

from dataclasses import dataclass

from torch import Tensor

from perception3d.ops.curve_order import CURVES, MAX_RANK


@dataclass(frozen=True)
class CurveSpec:
    """A space-filling curve through the grid.

    Attributes:
        rank: bits per axis: the curve fills a cube of 2^rank cells an edge.
        shift: cells added to z, y and x before the look-up, so that blocks of a network cut the
            neighbourhoods of the curve at different places.
        kind: "hilbert", or "z_order" (Morton).

    Raises:
        ValueError: a rank outside 1..20, a negative shift, or an unknown kind.
    """

    rank: int
    shift: int = 0
    kind: str = "hilbert"

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise ValueError(f"CurveSpec: rank must lie in 1..{MAX_RANK}, got {self.rank}")
        if self.shift < 0:
            raise ValueError(f"CurveSpec: shift must be >= 0, got {self.shift}")
        if self.kind not in CURVES:
            raise ValueError(f"CurveSpec: kind must be one of {CURVES}, got {self.kind!r}")


@dataclass(frozen=True)
class CurveOrder:
    """The voxels of each frame in the order of a curve.

    Attributes:
        order: (N,) int64 voxel rows, frame after frame.
        offsets: (B + 1,) int64, frame b holds the voxels order[offsets[b]:offsets[b + 1]].
        spec: the curve.
    """

    order: Tensor
    offsets: Tensor
    spec: CurveSpec
