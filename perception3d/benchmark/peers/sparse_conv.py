"""Sparse convolutions as done elsewhere: spconv, and torch operators over our table."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from perception3d.layers.sparse_kernel import Kernel
from perception3d.layers.spconv_rules import spconv_rules
from perception3d.structures import SparseVoxels

Candidate = Callable[[], object]


@dataclass(frozen=True)
class Grid:
    """One frame of voxels under a kernel; sizes in cells, order z, y, x.

    Without a stride the convolution is sub-manifold.
    """

    coords: Tensor
    shape: tuple[int, int, int]
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int] | None = None
    padding: tuple[int, int, int] = (0, 0, 0)

    def steps(self) -> tuple[list[int], list[int]]:
        """Return stride and padding as spconv counts them."""
        if self.stride is None:
            return [1, 1, 1], [size // 2 for size in self.kernel]
        return list(self.stride), list(self.padding)


def _spconv() -> ModuleType | None:
    """Return spconv.pytorch, None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about torch.cuda.amp
            import spconv.pytorch as spconv
    except ImportError:
        return None
    module: ModuleType = spconv
    return module


def spconv_index(grid: Grid) -> Candidate | None:
    """Return a call that builds spconv's pairs: its Native algorithm, on CUDA implicit GEMM."""
    spconv = _spconv()
    if spconv is None:
        return None
    from spconv.core import ConvAlgo

    ones, zeros = [1, 1, 1], [0, 0, 0]
    shape, kernel = list(grid.shape), list(grid.kernel)
    if grid.coords.is_cuda:
        build, algorithm = spconv.ops.get_indice_pairs_implicit_gemm, ConvAlgo.MaskImplicitGemm
    else:
        build, algorithm = spconv.ops.get_indice_pairs, ConvAlgo.Native
    steps, subm = grid.steps(), grid.stride is None
    return lambda: build(grid.coords, 1, shape, algorithm, kernel, *steps, ones, zeros, subm=subm)


def spconv_conv(
    grid: Grid, features: Tensor, weight: torch.nn.Parameter
) -> Callable[[], Tensor] | None:
    """Return a call of spconv whose pairs exist already.

    Its layer where that is sub-manifold; its strided layer finds its pairs anew in each call, so
    there it is our wrapping of spconv, which on CUDA puts the rows of the result in our order.

    Args:
        grid: voxels and kernel.
        features: (N, Cin).
        weight: (Cout, kz, ky, kx, Cin), the layer's parameter.
    """
    spconv = _spconv()
    if spconv is None:
        return None
    if grid.stride is not None:
        voxels = SparseVoxels(features, grid.coords, grid.shape, 1)
        rules = spconv_rules(voxels, Kernel(grid.kernel, grid.stride, grid.padding), backward=True)
        return lambda: rules.convolve(features, weight, None, False)
    from spconv.core import ConvAlgo

    algorithm = ConvAlgo.MaskImplicitGemm if features.is_cuda else ConvAlgo.Native
    layer = spconv.SubMConv3d(
        features.shape[1],
        weight.shape[0],
        list(grid.kernel),
        bias=False,
        indice_key="pairs",
        algo=algorithm,
    ).to(features.device, features.dtype)
    layer.weight = weight
    table = spconv.SparseConvTensor(features, grid.coords, list(grid.shape), 1)
    table.indice_dict.update(layer(table).indice_dict)

    def convolve() -> Tensor:
        result: Tensor = layer(table).features
        return result

    return convolve


def gather_and_sum(features: Tensor, neighbours: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise: gather (N, K, C) with zeros for missing voxels, multiply, sum over taps."""
    padded = torch.cat([features, features.new_zeros((1, features.shape[1]))])
    return (padded[neighbours] * weight).sum(1)


def gather_and_multiply(
    features: Tensor, pairs: list[tuple[Tensor, Tensor]], weight: Tensor, rows: int
) -> Tensor:
    """Per tap gather, torch.mm, index_add (the way of spconv's Native algorithm).

    Args:
        features: (N, Cin).
        pairs: per tap the rows read and the rows added to, int64.
        weight: (K, Cin, Cout).
        rows: of the result.
    """
    result = features.new_zeros((rows, weight.shape[2]))
    for (source, target), factor in zip(pairs, weight, strict=True):
        result = result.index_add(0, target, features[source] @ factor)
    return result
