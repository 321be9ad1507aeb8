"""How often a call turns to the GPU: kernel launches, and waits of the host."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from perception3d.benchmark.measure import WARM_UPS

# Names of the CUDA runtime and driver, as torch's profiler tells them.
LAUNCHES = frozenset(
    {
        "cudaLaunchKernel",
        "cudaLaunchKernelExC",
        "cudaLaunchCooperativeKernel",
        "cudaGraphLaunch",
        "cuLaunchKernel",
        "cuLaunchKernelEx",
    }
)
WAITS = frozenset(
    {"cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpy"}
)
_COUNTED = "perception3d: counted"
Span = tuple[str, float, float]  # name, start, end


@dataclass(frozen=True)
class CudaCalls:
    """What one call does.

    Attributes:
        kernel_launches: kernels started; a graph counts once.
        host_syncs: times the host waited for the GPU.
    """

    kernel_launches: int
    host_syncs: int


def measure_cuda_calls(run: Callable[[], object], device: torch.device) -> CudaCalls:
    """Profile one call after warm-ups.

    Args:
        run: function without arguments.
        device: the CUDA device that it works on.
    """
    for _ in range(WARM_UPS):
        run()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        with torch.profiler.record_function(_COUNTED):
            run()
        torch.cuda.synchronize(device)
    events = profile.events()
    return count_calls((e.name, e.time_range.start, e.time_range.end) for e in events or ())


def count_calls(events: Iterable[Span]) -> CudaCalls:
    """Count what lies between start and end of the call.

    Args:
        events: (name, start, end), of the profiler.

    Raises:
        RuntimeError: the profiler saw no call.
    """
    spans = list(events)
    whole = next((span for span in spans if span[0] == _COUNTED), None)
    if whole is None:
        raise RuntimeError("count_calls: the profiler saw no call")
    _, begin, end = whole
    inside = [name for name, start, stop in spans if start >= begin and stop <= end]
    return CudaCalls(
        sum(name in LAUNCHES for name in inside), sum(name in WAITS for name in inside)
    )
