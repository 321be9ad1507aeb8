"""Sparse convolutions as done elsewhere: spconv, and torch operators over our table."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

Candidate = Callable[[], object]


@dataclass(frozen=True)
class Grid:
    """One frame of voxels under a kernel; sizes in cells, order z, y, x."""

    coords: Tensor
    shape: tuple[int, int, int]
    kernel: tuple[int, int, int]


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
    padding = [size // 2 for size in kernel]
    return lambda: build(
        grid.coords, 1, shape, algorithm, kernel, ones, padding, ones, zeros, subm=True
    )


def spconv_conv(
    grid: Grid, features: Tensor, weight: torch.nn.Parameter
) -> Callable[[], Tensor] | None:
    """Return a call of spconv's SubMConv3d whose pairs exist already.

    Args:
        grid: voxels and kernel.
        features: (N, Cin).
        weight: (Cout, kz, ky, kx, Cin), the layer's parameter.
    """
    spconv = _spconv()
    if spconv is None:
        return None
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
    voxels = spconv.SparseConvTensor(features, grid.coords, list(grid.shape), 1)
    voxels.indice_dict.update(layer(voxels).indice_dict)

    def convolve() -> Tensor:
        result: Tensor = layer(voxels).features
        return result

    return convolve


def gather_and_sum(features: Tensor, neighbours: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise: gather (N, K, C) with zeros for missing voxels, multiply, sum over taps."""
    padded = torch.cat([features, features.new_zeros((1, features.shape[1]))])
    return (padded[neighbours] * weight).sum(1)


def gather_and_multiply(
    features: Tensor, pairs: list[tuple[Tensor, Tensor]], weight: Tensor
) -> Tensor:
    """Per tap gather, torch.mm, index_add (the way of spconv's Native algorithm).

    Args:
        features: (N, Cin).
        pairs: per tap the rows read and the rows added to, int64.
        weight: (K, Cin, Cout).
    """
    result = features.new_zeros((features.shape[0], weight.shape[2]))
    for (source, target), factor in zip(pairs, weight, strict=True):
        result = result.index_add(0, target, features[source] @ factor)
    return result
