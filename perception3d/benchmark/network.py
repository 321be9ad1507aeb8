"""Latency of a whole network, stage by stage, on a fixed batch."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.benchmark.measure import Timing
from perception3d.structures import Batch

WARM_UPS = 2
Record = dict[str, Any]
Moment = float | torch.cuda.Event


class _Clock:
    """Marks moments: on CUDA by events, on the CPU by wall or process time."""

    def __init__(self, device: torch.device, cpu_time: bool) -> None:
        self.device = device
        self.cuda = device.type == "cuda"
        self._now = time.process_time if cpu_time else time.perf_counter

    def mark(self) -> Moment:
        if not self.cuda:
            return self._now()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
        event.record()
        return event

    def between(self, start: Moment, end: Moment) -> float:
        """Milliseconds between two moments."""
        if isinstance(start, float) and isinstance(end, float):
            return 1000.0 * (end - start)
        assert isinstance(start, torch.cuda.Event)
        assert isinstance(end, torch.cuda.Event)
        return float(start.elapsed_time(end))

    def finish(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)


def measure_stages(
    net: nn.Module,
    batch: Batch,
    *,
    rounds: int = 9,
    threads: int = 1,
    cpu_time: bool = False,
    train: bool = False,
) -> dict[str, Timing]:
    """Time a network from points on the device to its result, and each of its parts.

    Args:
        net: `predict(batch)`, or with `train` `loss(batch)`; its direct children run in turn.
        batch: frames on the network's device.
        rounds: samples, after two warm-ups.
        threads: torch's threads on the CPU.
        cpu_time: process CPU time in place of wall time; of no meaning on CUDA.
        train: forward pass, loss and backward pass instead of a prediction.

    Returns:
        Timings of each child's forward pass, "rest" (decoding; in training loss and backward
        pass) and "total", by name.
    """
    clock = _Clock(batch.points.device, cpu_time)
    spans: dict[str, list[Moment]] = {}

    def open_span(name: str) -> Callable[..., None]:
        return lambda module, inputs: spans.setdefault(name, []).append(clock.mark())

    def close_span(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: spans[name].append(clock.mark())

    hooks = []
    for name, child in net.named_children():
        hooks.append(child.register_forward_pre_hook(open_span(name)))
        hooks.append(child.register_forward_hook(close_span(name)))
    samples: dict[str, list[float]] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net.train(train)
    try:
        for number in range(WARM_UPS + rounds):
            spans.clear()
            start = clock.mark()
            run_once(net, batch, train)
            end = clock.mark()
            clock.finish()
            times = {name: clock.between(*marks) for name, marks in spans.items()}
            times["total"] = clock.between(start, end)
            times["rest"] = times["total"] - sum(t for n, t in times.items() if n != "total")
            if number >= WARM_UPS:
                for name, value in times.items():
                    samples.setdefault(name, []).append(value)
    finally:
        torch.set_num_threads(before)
        for hook in hooks:
            hook.remove()
    order = [name for name, _ in net.named_children() if name in samples] + ["rest", "total"]
    return {name: Timing(tuple(samples[name])) for name in order}


def run_once(net: nn.Module, batch: Batch, train: bool) -> None:
    """Predict, or with `train` compute losses and gradients."""
    detector: Any = net  # its predict and loss are unknown to torch's types
    if not train:
        with torch.no_grad():
            detector.predict(batch)
        return
    net.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = detector.loss(batch)
    total = torch.stack([value for name, value in losses.items() if "loss" in name]).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch's


def rows(
    timings: dict[str, Timing], *, op: str, workload: str, batch: Batch, threads: int, **place: str
) -> list[Record]:
    """Arrange timings as rows of the operator benchmark; there is no peer and no floor.

    Args:
        timings: of `measure_stages`.
        op: name of the network.
        workload: name of the points.
        batch: what was measured with.
        threads: torch's threads.
        place: further entries, e.g. direction and clock.
    """
    return [
        {
            "op": f"{op}/{stage}",
            "workload": workload,
            "dtype": "float32",
            "device": str(batch.points.device),
            "threads": threads,
            "batch_size": batch.batch_size,
            "points": batch.points.shape[0],
            "ours_ms": timing.median,
            "peer_name": None,
            "peer_ms": None,
            "ratio": None,
            "floor_ms": None,
            "floor_kind": None,
            "ours_over_floor": None,
            "max_err": None,
            "n": len(timing.rounds),
            "spread": timing.spread,
            **place,
        }
        for stage, timing in timings.items()
    ]
