"""Rule books of sparse convolutions: which input row meets which output row under which weight."""

import torch
from torch import Tensor

from perception3d.layers.sparse_kernel import Convolution, Kernel, RuleBook
from perception3d.layers.spconv_rules import spconv_rules, spconv_serves_gpus
from perception3d.ops.sparse_conv import sparse_conv
from perception3d.ops.sparse_index import sparse_index
from perception3d.ops.subm_conv import subm_conv
from perception3d.structures import SparseVoxels


def rule_book(voxels: SparseVoxels, kernel: Kernel) -> RuleBook:
    """Return the rule book of a kernel on voxels, computed once (kept in their index cache).

    Our own operators convolve, but on GPUs spconv where it is installed with CUDA kernels: its
    matrix products are tuned.

    Raises:
        ValueError: grid too small for the kernel, or more cells than can be numbered.
        BrokenSpconvError: on a GPU, where spconv is installed and cannot be loaded.
    """
    # spconv leaves the tables of the backward pass out when they are not asked for.
    backward = torch.is_grad_enabled() or not _spconv_convolves_on(voxels.coords.device)
    return voxels.cache.get(("rules", kernel, backward), lambda: _build(voxels, kernel, backward))


def _spconv_convolves_on(device: torch.device) -> bool:
    return device.type == "cuda" and spconv_serves_gpus()


def _build(voxels: SparseVoxels, kernel: Kernel, backward: bool) -> RuleBook:
    if _spconv_convolves_on(voxels.coords.device):
        return spconv_rules(voxels, kernel, backward=backward)
    return native_rules(voxels, kernel)


def native_rules(voxels: SparseVoxels, kernel: Kernel) -> RuleBook:
    """Build a rule book on our own operators."""
    shape = kernel.output_shape(voxels.spatial_shape)
    if kernel.submanifold:
        return RuleBook(voxels.coords, shape, _submanifold(voxels.neighbours(kernel.size)))
    coords, inputs, outputs = sparse_index(
        voxels.coords,
        voxels.batch_size,
        voxels.spatial_shape,
        kernel.size,
        kernel.stride,
        kernel.padding,
    )
    return RuleBook(coords, shape, _strided(inputs, outputs))


def _submanifold(neighbours: Tensor) -> Convolution:
    def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        assert not transposed, "a submanifold convolution has no way back"
        return subm_conv(features, neighbours, weight, bias)

    return convolve


def _strided(inputs: Tensor, outputs: Tensor) -> Convolution:
    def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        tables = (outputs, inputs) if transposed else (inputs, outputs)
        return sparse_conv(features, *tables, weight, bias)

    return convolve
