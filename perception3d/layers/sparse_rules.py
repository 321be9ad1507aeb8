"""Rule books of sparse convolutions: which input row meets which output row under which weight.

The only file that touches spconv.  It is imported on first use, so that networks can be built,
loaded and converted without it.  On the CPU it makes the lists of pairs of strided convolutions;
products and sums are ours there, faster and independent of the company that a row has.
"""

import importlib
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from perception3d.errors import UserError
from perception3d.layers.pair_products import convolve_pairs
from perception3d.ops.subm_conv import subm_conv
from perception3d.structures import IndexCache, SparseVoxels

Cells = tuple[int, int, int]
_Apply = Callable[[Tensor, Tensor, bool], Tensor]

# spconv's fast algorithm for GPUs keeps one bit per weight in a 32-bit mask.
_MAX_MASKED_KERNEL = 32
_MAX_INT32 = 2**31 - 1


class MissingSpconvError(UserError, ImportError):
    """spconv is not installed, cannot be loaded, or is the package that has no CUDA kernels."""


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
        sizes = [
            (cells + 2 * pad - size) // step + 1
            for cells, size, step, pad in zip(
                shape, self.size, self.stride, self.padding, strict=True
            )
        ]
        if min(sizes) < 1:
            raise ValueError(
                f"sparse convolution: a grid of {shape} cells (z, y, x) is too small for kernel "
                f"{self.size}, stride {self.stride}, padding {self.padding}"
            )
        return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True)
class RuleBook:
    """What one kernel does to one set of coordinates.

    Attributes:
        coords: (M, 4) int32 rows (b, z, y, x) of the outputs; ascending, where they are not the
            inputs, so that results do not depend on the order of the inputs.
        spatial_shape: grid size of the outputs, order z, y, x.
        num_inputs: rows N of the inputs.
        cache: index tables of the outputs, shared by all layers that share this rule book; not
            used where the outputs are the inputs.
    """

    coords: Tensor
    spatial_shape: Cells
    num_inputs: int
    _apply: _Apply | None = field(repr=False)
    cache: IndexCache = field(default_factory=IndexCache, repr=False)

    def convolve(self, features: Tensor, weight: Tensor, *, transposed: bool = False) -> Tensor:
        """Convolve (N, Cin) to (M, Cout), or `transposed` (M, Cin) to (N, Cout).

        Args:
            features: (N or M, Cin) float.
            weight: (Cout, kz, ky, kx, Cin), dtype of `features`.
            transposed: outputs are the inputs of the rule book and vice versa.
        """
        rows = self.num_inputs if transposed else self.coords.shape[0]
        if self._apply is None:  # spconv stops at zero voxels; gradients must be zero, not absent
            nothing = features[:0] @ weight.flatten(1, 3)[:, 0].T
            return nothing.new_zeros(rows, weight.shape[0]) + nothing.sum()
        return self._apply(features.contiguous(), weight.contiguous(), transposed)


def rule_book(voxels: SparseVoxels, kernel: Kernel) -> RuleBook:
    """Return the rule book of a kernel on voxels, computed once (kept in their index cache).

    Raises:
        ValueError: grid too small for the kernel, or too many cells for spconv's 32-bit keys.
        MissingSpconvError: spconv is needed and cannot be used.
    """
    # On a GPU spconv leaves the tables of the backward pass out when they are not asked for.
    backward = torch.is_grad_enabled()
    key = ("rules", kernel, backward or not voxels.coords.is_cuda)
    return voxels.cache.get(key, lambda: _build(voxels, kernel, backward))


def _build(voxels: SparseVoxels, kernel: Kernel, backward: bool) -> RuleBook:
    shape = kernel.output_shape(voxels.spatial_shape)
    volume = max(math.prod(shape), math.prod(voxels.spatial_shape)) * voxels.batch_size
    if volume > _MAX_INT32:
        raise ValueError(
            f"sparse convolution: {volume} cells in a batch are more than spconv can number "
            f"({_MAX_INT32}); use fewer frames, coarser voxels or a shorter range"
        )
    if voxels.num_voxels == 0:
        return RuleBook(voxels.coords, shape, 0, None)
    if not voxels.coords.is_cuda:
        coords, apply = (
            _neighbours(voxels, kernel) if kernel.submanifold else _pairs(voxels, kernel)
        )
    elif kernel.volume <= _MAX_MASKED_KERNEL:
        coords, apply = _masked_rules(voxels, kernel, backward)
    else:
        coords, apply = _native_rules(voxels, kernel)
    return RuleBook(coords, shape, voxels.num_voxels, apply if coords.shape[0] else None)


def _neighbours(voxels: SparseVoxels, kernel: Kernel) -> tuple[Tensor, _Apply]:
    """Convolve at the voxels themselves, by our own operators: CPU."""
    neighbours = voxels.neighbours(kernel.size)

    def apply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        return subm_conv(features, neighbours, weight)

    return voxels.coords, apply


def _pairs(voxels: SparseVoxels, kernel: Kernel) -> tuple[Tensor, _Apply]:
    """Gather, multiply, add per weight: CPU."""
    coords, table, counts = _pair_table(voxels, kernel, _spconv(cuda=False))
    pairs = [
        (table[0, tap, :count].long(), table[1, tap, :count].long())
        for tap, count in enumerate(counts.tolist())
    ]
    back = [(targets, sources) for sources, targets in pairs]

    def apply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        rows = voxels.num_voxels if transposed else coords.shape[0]
        return convolve_pairs(features, weight.flatten(1, 3), back if transposed else pairs, rows)

    return coords, apply


def _native_rules(voxels: SparseVoxels, kernel: Kernel) -> tuple[Tensor, _Apply]:
    """Gather, multiply, scatter per weight: CUDA, any kernel."""
    spconv = _spconv(cuda=True)
    native = spconv.core.ConvAlgo.Native
    coords, pairs, counts = _pair_table(voxels, kernel, spconv)

    def apply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        functions = spconv.pytorch.functional
        rows = voxels.num_voxels if transposed else coords.shape[0]
        if transposed:
            convolve = functions.indice_inverse_conv
        else:
            convolve = functions.indice_subm_conv if kernel.submanifold else functions.indice_conv
        out: Tensor = convolve(features, weight, pairs, counts, rows, native)
        return out

    return coords, apply


def _pair_table(
    voxels: SparseVoxels, kernel: Kernel, spconv: ModuleType
) -> tuple[Tensor, Tensor, Tensor]:
    """Return output coordinates, rows (2, K, P) of inputs and outputs, pairs (K,) of a weight."""
    coords, pairs, counts = spconv.pytorch.ops.get_indice_pairs(
        *_geometry(voxels, kernel, spconv.core.ConvAlgo.Native), subm=kernel.submanifold
    )
    if not kernel.submanifold and coords.shape[0]:
        order = _ascending(coords)
        coords = coords[order]
        targets = pairs[1].long()  # -1 where there is no pair
        pairs[1] = torch.where(targets < 0, targets, _inverse(order)[targets])
    return coords, pairs, counts


def _masked_rules(voxels: SparseVoxels, kernel: Kernel, backward: bool) -> tuple[Tensor, _Apply]:
    """One fused matrix product over masked tiles: CUDA, kernels up to 32 weights."""
    spconv = _spconv(cuda=True)
    ops = spconv.pytorch.ops
    tables = ops.get_indice_pairs_implicit_gemm(
        *_geometry(voxels, kernel, spconv.core.ConvAlgo.MaskImplicitGemm),
        subm=kernel.submanifold,
        is_train=backward,
        alloc=spconv.pytorch.core.ThrustSortAllocator(voxels.coords.device),
    )
    coords, _, to_out, to_in, out_masks, in_masks, out_order, in_order, masks = tables
    order = None if kernel.submanifold else _ascending(coords)
    own_row = None if order is None else _inverse(order)

    def apply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        rows = voxels.num_voxels if transposed else coords.shape[0]
        if transposed and own_row is not None:
            features = features[own_row]
        forward = (to_out, to_in, out_masks, in_masks, out_order, in_order)
        reverse = (to_in, to_out, in_masks, out_masks, in_order, out_order)
        out: Tensor = spconv.pytorch.functional.implicit_gemm(
            features,
            weight,
            *(reverse if transposed else forward),
            rows,
            masks,
            backward,
            kernel.submanifold,
        )
        return out if transposed or order is None else out[order]

    return coords if order is None else coords[order], apply


def _ascending(coords: Tensor) -> Tensor:
    """Return the permutation that sorts one or more rows (b, z, y, x)."""
    rows = coords.long()
    extent = rows.amax(0) + 1
    key = ((rows[:, 0] * extent[1] + rows[:, 1]) * extent[2] + rows[:, 2]) * extent[3] + rows[:, 3]
    return key.argsort()


def _inverse(order: Tensor) -> Tensor:
    """Return the place of every row in a permutation."""
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0], device=order.device)
    return place


def _geometry(voxels: SparseVoxels, kernel: Kernel, algorithm: object) -> tuple[Any, ...]:
    """Return what both of spconv's rule makers start with."""
    dilation, output_padding = [1, 1, 1], [0, 0, 0]
    return (
        voxels.coords.contiguous(),
        voxels.batch_size,
        list(voxels.spatial_shape),
        algorithm,
        list(kernel.size),
        list(kernel.stride),
        list(kernel.padding),
        dilation,
        output_padding,
    )


@cache
def _spconv(*, cuda: bool) -> ModuleType:
    """Import spconv; `cuda` demands a build that has CUDA kernels.

    Raises:
        MissingSpconvError: naming the package to install.
    """
    package = "spconv-cu126" if sys.version_info >= (3, 12) else "spconv-cu120"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of renamed torch functions
            spconv = importlib.import_module("spconv")
            importlib.import_module("spconv.pytorch")
            constants = importlib.import_module("spconv.cppconstants")
    except (ImportError, OSError) as error:
        raise MissingSpconvError(
            f"sparse convolutions need spconv ({error}); pip install {package}"
        ) from error
    if cuda and constants.CPU_ONLY_BUILD:
        raise MissingSpconvError(
            "the installed package 'spconv' is a CPU-only build; "
            f"pip uninstall -y spconv && pip install {package}"
        )
    return spconv
