"""Which operators the time of a network, or of one part of it, goes to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from perception3d.benchmark.network import WARM_UPS, run_once
from perception3d.structures import Batch, SparseVoxels


@dataclass(frozen=True)
class Share:
    """Time inside one operator, without the operators that it calls.

    Attributes:
        operator: name, e.g. "perception3d::subm_conv".
        calls: per run.
        milliseconds: per run.
        share: of the time in all operators, 0..1.
    """

    operator: str
    calls: float
    milliseconds: float
    share: float


def measure_shares(
    net: nn.Module, batch: Batch, part: str | None = None, *, rounds: int = 3, threads: int = 1
) -> list[Share]:
    """Profile a prediction and add up the time of each operator.

    Args:
        net: `predict(batch)`.
        batch: frames on the network's device.
        part: a direct child of the network, to look at that alone; None: all of it.
        rounds: profiled runs, after two warm-ups.
        threads: torch's threads on the CPU.

    Returns:
        Operators from the longest time to the shortest; on CUDA the time of their kernels.

    Raises:
        ValueError: the network has no such part, or does not call it.
    """
    cuda = batch.points.is_cuda
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net.eval()
    run: Callable[[], None] = partial(run_once, net, batch, False)
    if part is not None:
        run = _alone(net, part, run)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    try:
        for _ in range(WARM_UPS):
            run()
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(rounds):
                run()
            if cuda:
                torch.cuda.synchronize(batch.points.device)
    finally:
        torch.set_num_threads(before)
    return _shares(profile, rounds, cuda)


def _alone(net: nn.Module, part: str, run: Callable[[], None]) -> Callable[[], None]:
    """Return a call of one part with what the network gives it, index tables not yet made."""
    children = dict(net.named_children())
    if part not in children:
        raise ValueError(f"part must be one of {sorted(children)}, got {part!r}")
    seen: list[tuple[Any, ...]] = []
    hook = children[part].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    run()
    hook.remove()
    if not seen:
        raise ValueError(f"the network does not call its part {part!r}")

    @torch.no_grad()
    def call() -> None:
        children[part](*map(_fresh, seen[0]))

    return call


def _fresh(value: object) -> object:
    if not isinstance(value, SparseVoxels):
        return value
    return SparseVoxels(value.features, value.coords, value.spatial_shape, value.batch_size)


def _shares(profile: torch.profiler.profile, rounds: int, cuda: bool) -> list[Share]:
    found = [
        (
            event.key,
            event.count,
            event.self_device_time_total if cuda else event.self_cpu_time_total,
        )
        for event in profile.key_averages()
    ]
    total = sum(microseconds for _, _, microseconds in found)
    return [
        Share(name, count / rounds, microseconds / rounds / 1000.0, microseconds / total)
        for name, count, microseconds in sorted(found, key=lambda entry: -entry[2])
        if microseconds > 0
    ]
