"""The measuring protocol on CUDA: events around single calls, the second-level cache flushed."""

from collections.abc import Callable

import torch

from perception3d.benchmark.measure import WARM_UPS, Candidate, Timing

CUDA_ROUNDS = 30
SMALLEST_FLUSH = 64 * 2**20  # bytes


def measure_cuda(
    candidates: dict[str, Candidate], *, device: torch.device, rounds: int = CUDA_ROUNDS
) -> dict[str, Timing]:
    """Time candidates in turn, A B C A B C, each call alone on an idle device and a cold cache.

    The flush before each call runs on the device while Python enqueues the call, so a call that
    is enqueued faster than the flush takes (some 30 us) shows its time on the device; a longer
    chain of launches, and any wait for the device, shows its whole cost.

    Args:
        candidates: functions without arguments, by name; they work on the current stream.
        device: where they work.
        rounds: samples per candidate.

    Returns:
        Timings by name.
    """
    flush = cache_flush(device)
    with torch.cuda.device(device):
        for run in candidates.values():
            for _ in range(WARM_UPS + 1):
                run()
        torch.cuda.synchronize(device)
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(rounds):
            for name, run in candidates.items():
                samples[name].append(_sample(run, flush, device))
    return {name: Timing(tuple(times)) for name, times in samples.items()}


def cache_flush(device: torch.device) -> Callable[[], object]:
    """Return a call that overwrites more memory than the second-level cache holds."""
    cache = int(torch.cuda.get_device_properties(device).L2_cache_size)
    buffer = torch.empty(max(2 * cache, SMALLEST_FLUSH), dtype=torch.int8, device=device)
    return buffer.zero_


def _sample(run: Candidate, flush: Callable[[], object], device: torch.device) -> float:
    """Return the ms between two events around one call."""
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
    torch.cuda.synchronize(device)
    flush()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))


def capture(run: Candidate, device: torch.device) -> Candidate | None:
    """Record a call as a CUDA graph.

    Returns:
        A call that replays it; None if it cannot be recorded, because it waits for the device
        (sizes that depend on data) or allocates outside torch.
    """
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
    try:
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS + 1):  # lazy initialisation must not be recorded
                run()
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph):
            run()
        graph.replay()
        torch.cuda.synchronize(device)
    except RuntimeError:  # torch reports a broken recording so, whatever broke it
        return None
    return graph.replay
