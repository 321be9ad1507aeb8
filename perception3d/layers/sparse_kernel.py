"""Geometry of sparse convolutions, and what they do to a set of coordinates."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from perception3d.ops.sparse_index import output_shape
from perception3d.structures import IndexCache

Cells = tuple[int, int, int]
# (features, weight, bias or None, transposed) -> features of the other side
Convolution = Callable[[Tensor, Tensor, Tensor | None, bool], Tensor]


@dataclass(frozen=True)
class Kernel:
    """Geometry of a sparse convolution, order z, y, x.

    Attributes:
        size: cells of the kernel.
        stride: step between output cells.
        padding: cells added around the grid.
        submanifold: outputs are the input voxels themselves (stride and padding play no part).
    """

    size: Cells
    stride: Cells = (1, 1, 1)
    padding: Cells = (0, 0, 0)
    submanifold: bool = False

    @property
    def volume(self) -> int:
        """Weights per pair of channels."""
        return math.prod(self.size)

    def output_shape(self, shape: Cells) -> Cells:
        """Return the grid size that a grid of `shape` cells leads to, all order z, y, x.

        Raises:
            ValueError: no cell would be left along an axis.
        """
        if self.submanifold:
            return shape
        return output_shape(shape, self.size, self.stride, self.padding)


@dataclass(frozen=True)
class RuleBook:
    """What one kernel does to one set of coordinates.

    Attributes:
        coords: (M, 4) int32 rows (b, z, y, x) of the outputs; ascending, where they are not the
            inputs, so that results do not depend on the order of the inputs.
        spatial_shape: grid size of the outputs, order z, y, x.
        convolve: maps (N, Cin) to (M, Cout), or transposed (M, Cin) to (N, Cout); weights are
            (Cout, kz, ky, kx, Cin).
        cache: index tables of the outputs, shared by all layers that share this rule book; not
            used where the outputs are the inputs.
    """

    coords: Tensor
    spatial_shape: Cells
    convolve: Convolution = field(repr=False)
    cache: IndexCache = field(default_factory=IndexCache, repr=False)
