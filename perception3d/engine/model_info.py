"""Parameters and arithmetic of a network, part by part, on a real batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from perception3d.benchmark.operator_flops import operator_flops
from perception3d.structures import Batch, SetPartition, SparseVoxels


@dataclass(frozen=True)
class PartInfo:
    """One part of a network.

    Attributes:
        name: attribute of the network, "total" for all of it.
        kind: class name.
        parameters: trainable and frozen numbers.
        flops: floating-point operations of one forward pass; a multiply-add counts as two, and
            only matrix products, convolutions and attention count.
        voxels: rows of the part's result, None where it is dense.
    """

    name: str
    kind: str
    parameters: int
    flops: int
    voxels: int | None


@dataclass(frozen=True)
class ModelInfo:
    """A network on a batch.

    Attributes:
        points: points of the batch.
        frames: frames of the batch.
        parts: direct children of the network in order, then the total.
        sets: sets of each partition that attention ran over, with their slots.
    """

    points: int
    frames: int
    parts: tuple[PartInfo, ...]
    sets: tuple[tuple[int, int], ...]


def examine(net: nn.Module, batch: Batch) -> ModelInfo:
    """Run a network once and count.

    Sparse parts are counted from the rows that the batch really has, attention from the true
    members of its sets.

    Args:
        net: forward(batch) runs all parts; set to eval mode.
        batch: frames on the network's device.
    """
    net.eval()
    voxels: dict[str, int] = {}
    partitions: dict[int, tuple[int, int]] = {}

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, SparseVoxels):
                voxels[name] = output.num_voxels
            for value in inputs:
                if isinstance(value, SparseVoxels):
                    _collect_sets(value, partitions)

        return look

    hooks = [child.register_forward_hook(watch(name)) for name, child in net.named_children()]
    counter = FlopCounterMode(display=False, depth=2, custom_mapping=operator_flops())
    try:
        with torch.no_grad(), counter:
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()
    counts = counter.get_flop_counts()
    root = type(net).__name__
    parts = [
        PartInfo(
            name,
            type(child).__name__,
            sum(p.numel() for p in child.parameters()),
            sum(counts.get(f"{root}.{name}", {}).values()),
            voxels.get(name),
        )
        for name, child in net.named_children()
    ]
    total = sum(p.numel() for p in net.parameters())
    parts.append(PartInfo("total", root, total, counter.get_total_flops(), None))
    return ModelInfo(
        batch.points.shape[0], batch.batch_size, tuple(parts), tuple(partitions.values())
    )


def _collect_sets(voxels: SparseVoxels, partitions: dict[int, tuple[int, int]]) -> None:
    """Note the set partitions that were computed for these voxels."""
    for table in voxels.cache.tables():
        if isinstance(table, SetPartition):
            orders, sets, slots = table.voxel_of_slot.shape
            partitions[id(table)] = (orders * sets, slots)


def report(info: ModelInfo) -> str:
    """Write a table."""
    lines = [
        f"{info.frames} frame(s), {info.points:,} points",
        f"{'part':12s} {'class':16s} {'parameters':>12s} {'GFLOP':>10s} {'voxels':>9s}",
    ]
    for part in info.parts:
        rows = "" if part.voxels is None else f"{part.voxels:,}"
        lines.append(
            f"{part.name:12s} {part.kind:16s} {part.parameters:12,} "
            f"{part.flops / 1e9:10.3f} {rows:>9s}"
        )
    for sets, slots in info.sets:
        lines.append(f"attention over {sets:,} sets of {slots} slots")
    return "\n".join(lines)


def repeat_cloud(points: Tensor, frames: int, token: str) -> Batch:
    """Repeat one cloud (P, F) into a batch of frames."""
    identity = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    return Batch(
        tokens=tuple(f"{token}{frame}" for frame in range(frames)),
        points=points.repeat(frames, 1),
        frame_of_point=torch.arange(frames, dtype=torch.int32).repeat_interleave(points.shape[0]),
        lidar_to_global=identity,
        augmentation=identity,
    )
