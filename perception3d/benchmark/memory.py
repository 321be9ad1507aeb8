"""Memory that a training step of a backbone takes."""

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from perception3d.structures import SparseVoxels

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # proc(5)
# glibc keeps freed blocks below a threshold that rises to 32 MB: with a low one, what is in use is
# what tensors use.
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt(3)
_LARGE_BLOCK = 1 << 18


@dataclass(frozen=True)
class TrainingMemory:
    """What a step adds to the memory of the process, bytes.

    Attributes:
        kept: held between forward and backward pass.
        peak: highest at any moment, gradients of the parameters included.
    """

    kept: int
    peak: int


def surface_voxels(
    count: int, channels: int, grid: tuple[int, int, int], device: torch.device | str = "cpu"
) -> SparseVoxels:
    """Make voxels that lie as points on the ground and on walls do: a rolling sheet, then the next.

    Args:
        count: voxels N.
        channels: width C of their random features.
        grid: cells (x, y, z).
        device: where they go.

    Raises:
        ValueError: more voxels than cells.
    """
    width, height, depth = grid
    if not 0 < count <= width * height * depth:
        raise ValueError(f"surface_voxels: count must lie in 1..{width * height * depth}")
    generator = torch.Generator().manual_seed(0)
    sheets = math.ceil(count / (width * height))
    place = torch.randperm(sheets * width * height, generator=generator)[:count]
    sheet, y, x = place // (width * height), place // width % height, place % width
    ground = ((torch.sin(x / 17) + torch.cos(y / 23) + 2) * depth / 8).long()
    coords = torch.stack([torch.zeros_like(x), (ground + sheet) % depth, y, x], 1).int()
    features = torch.randn(count, channels, generator=generator)
    return SparseVoxels(features.to(device), coords.to(device), (depth, height, width), 1)


def measure_training_memory(backbone: nn.Module, voxels: SparseVoxels) -> TrainingMemory:
    """Run one forward and backward pass of a backbone in training mode.

    On the CPU the figures are resident memory of the process, so measure in a fresh one; how it
    allocates is changed.

    Args:
        backbone: SparseVoxels -> SparseVoxels, on the device of the voxels.
        voxels: input; its features get a gradient too.

    Raises:
        OSError: a CPU on which the system does not tell (it needs Linux' /proc).
    """
    backbone.train()
    leaf = voxels.features.requires_grad_()
    start = _forget_peak(leaf)
    result = backbone(voxels.with_features(leaf)).features
    kept = _now(leaf) - start
    result.square().mean().backward()
    return TrainingMemory(kept, _peak(leaf) - start)


def _forget_peak(like: Tensor) -> int:
    """Begin anew to look for the peak; return what is in use."""
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
        torch.cuda.reset_peak_memory_stats(like.device)
    else:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        _RESET.write_text(_FORGET_PEAK)
    return _now(like)


def _now(like: Tensor) -> int:
    return torch.cuda.memory_allocated(like.device) if like.is_cuda else _resident("VmRSS")


def _peak(like: Tensor) -> int:
    return torch.cuda.max_memory_allocated(like.device) if like.is_cuda else _resident("VmHWM")


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
