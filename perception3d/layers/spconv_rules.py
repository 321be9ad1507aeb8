"""Rule books on spconv.  The only file that touches it.

It is imported on first use, so that networks can be built, loaded and converted without it.
"""

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from perception3d.errors import UserError
from perception3d.layers.sparse_kernel import Convolution, Kernel, RuleBook
from perception3d.structures import SparseVoxels

# (features, weight, transposed) -> features of the other side
_Product = Callable[[Tensor, Tensor, bool], Tensor]

# spconv's fast algorithm for GPUs keeps one bit per weight in a 32-bit mask.
_MAX_MASKED_KERNEL = 32
_MAX_INT32 = 2**31 - 1


class BrokenSpconvError(UserError, ImportError):
    """spconv cannot be loaded."""


@cache
def spconv_serves_gpus() -> bool:
    """Say whether spconv is installed, and is not the package without CUDA kernels.

    Raises:
        BrokenSpconvError: it is installed and cannot be loaded.
    """
    if importlib.util.find_spec("spconv") is None:
        return False
    _spconv()
    return not importlib.import_module("spconv.cppconstants").CPU_ONLY_BUILD


def spconv_rules(voxels: SparseVoxels, kernel: Kernel, *, backward: bool) -> RuleBook:
    """Build a rule book on spconv.

    Args:
        voxels: inputs, on any device.
        kernel: geometry.
        backward: prepare for gradients.

    Raises:
        ValueError: grid too small for the kernel, or too many cells for spconv's 32-bit keys.
        BrokenSpconvError: spconv cannot be loaded.
    """
    shape = kernel.output_shape(voxels.spatial_shape)
    volume = max(math.prod(shape), math.prod(voxels.spatial_shape)) * voxels.batch_size
    if volume > _MAX_INT32:
        raise ValueError(
            f"sparse convolution: {volume} cells in a batch are more than spconv can number "
            f"({_MAX_INT32}); use fewer frames, coarser voxels or a shorter range"
        )
    if voxels.num_voxels == 0:
        return RuleBook(voxels.coords, shape, _nothing(0, 0))
    if voxels.coords.is_cuda and kernel.volume <= _MAX_MASKED_KERNEL:
        coords, multiply = _masked_rules(voxels, kernel, backward)
    else:
        coords, multiply = _native_rules(voxels, kernel)
    if coords.shape[0] == 0:
        return RuleBook(coords, shape, _nothing(voxels.num_voxels, 0))
    return RuleBook(coords, shape, _safe(multiply))


def _nothing(num_inputs: int, num_outputs: int) -> Convolution:
    """Return a convolution without pairs: spconv stops there; gradients must be 0, not absent."""

    def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        nothing = (features[:0] @ weight.flatten(1, 3)[:, 0].T).sum()
        rows = num_inputs if transposed else num_outputs
        out = features.new_zeros(rows, weight.shape[0]) + nothing
        return out if bias is None else out + bias

    return convolve


def _safe(multiply: _Product) -> Convolution:
    """Wrap spconv: a dtype that it knows, no autocast of its own, the bias outside."""

    def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        dtype = features.dtype
        if dtype == torch.bfloat16 or (dtype == torch.float16 and not features.is_cuda):
            dtype = torch.float32
        with torch.autocast(features.device.type, enabled=False):
            rows = features.to(dtype).contiguous()
            out = multiply(rows, weight.to(dtype).contiguous(), transposed)
            # spconv refuses a bias in evaluation on the CPU
            out = out if bias is None else out + bias.to(dtype)
        return out.to(features.dtype)

    return convolve


def _native_rules(voxels: SparseVoxels, kernel: Kernel) -> tuple[Tensor, _Product]:
    """Gather, multiply, scatter per weight: any device, any kernel."""
    spconv = _spconv()
    native = spconv.core.ConvAlgo.Native
    coords, pairs, counts = spconv.pytorch.ops.get_indice_pairs(
        *_geometry(voxels, kernel, native), subm=kernel.submanifold
    )
    if not kernel.submanifold and coords.shape[0]:
        order = _ascending(coords)
        coords = coords[order]
        targets = pairs[1].long()  # -1 where there is no pair
        pairs[1] = torch.where(targets < 0, targets, _inverse(order)[targets])

    num_inputs, num_outputs = voxels.num_voxels, coords.shape[0]

    def multiply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        functions = spconv.pytorch.functional
        rows = num_inputs if transposed else num_outputs
        if transposed:
            convolve = functions.indice_inverse_conv
        else:
            convolve = functions.indice_subm_conv if kernel.submanifold else functions.indice_conv
        out: Tensor = convolve(features, weight, pairs, counts, rows, native)
        return out

    return coords, multiply


def _masked_rules(voxels: SparseVoxels, kernel: Kernel, backward: bool) -> tuple[Tensor, _Product]:
    """One fused matrix product over masked tiles: CUDA, kernels up to 32 weights."""
    spconv = _spconv()
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

    num_inputs, num_outputs = voxels.num_voxels, coords.shape[0]

    def multiply(features: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        if transposed and own_row is not None:
            features = features[own_row]
        forward = (to_out, to_in, out_masks, in_masks, out_order, in_order)
        reverse = (to_in, to_out, in_masks, out_masks, in_order, out_order)
        out: Tensor = spconv.pytorch.functional.implicit_gemm(
            features,
            weight,
            *(reverse if transposed else forward),
            num_inputs if transposed else num_outputs,
            masks,
            backward,
            kernel.submanifold,
        )
        return out if transposed or order is None else out[order]

    return coords if order is None else coords[order], multiply


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
def _spconv() -> ModuleType:
    """Import spconv.

    Raises:
        BrokenSpconvError: naming the package to install.
    """
    package = "spconv-cu126" if sys.version_info >= (3, 12) else "spconv-cu120"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of renamed torch functions
            spconv = importlib.import_module("spconv")
            importlib.import_module("spconv.pytorch")
    except (ImportError, OSError) as error:
        raise BrokenSpconvError(
            f"spconv cannot be loaded ({error}); pip install {package}, or uninstall it: our own "
            "operators then convolve on GPUs"
        ) from error
    return spconv
