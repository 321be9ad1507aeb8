"""What a machine can do at best: memory, arithmetic, exponentials.  Floors follow from it."""

import math
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch.nn.functional import conv2d

from perception3d.benchmark.native_peaks import peak_loop
from perception3d.benchmark.row import Case

Ceilings = Mapping[str, float]

STREAMED_BYTES = 128 * 2**20
MATRIX = 1024  # rows and columns of the product on the CPU
MATRIX_CUDA = 8192
EXPS = 1 << 16  # fits the second-level cache of a core
EXPS_CUDA = 1 << 26
ROW_FLOATS = 192  # a row of DSVT's features
CHANNELS = 192
LONGEST = 0.3  # s for one figure
CALLS = 3  # per sample
MATRIX_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure_ceilings(device: torch.device, threads: int) -> dict[str, float]:
    """Measure the ceilings of a device.

    Args:
        device: CPU or CUDA.
        threads: torch's threads, for the CPU.

    Returns:
        "copy_bytes_per_s" (read plus written), "read_bytes_per_s", "gather_bytes_per_s" (random
        rows of 192 float32, bytes read), "exp_per_s" (torch's or a loop of our own, whichever is
        faster), "fma_float32_flops_per_s" (multiply-adds count two; absent without a compiler),
        and "gemm_DTYPE_flops_per_s" of float32 and bfloat16 (the best of torch's ways).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rates = {
            "copy_bytes_per_s": _copy_rate(device),
            "read_bytes_per_s": _read_rate(device),
            "gather_bytes_per_s": _gather_rate(device),
            "exp_per_s": max((_exp_rate(device), *_loop_rate("exp", device, threads))),
        }
        for rate in _loop_rate("fma", device, threads):
            rates["fma_float32_flops_per_s"] = rate
        for name, dtype in MATRIX_DTYPES.items():
            rates[f"gemm_{name}_flops_per_s"] = _matrix_rate(device, dtype)
        return rates
    finally:
        torch.set_num_threads(before)


def ceilings_by_threads(
    device: torch.device, threads: Iterable[int]
) -> dict[str, dict[str, float]]:
    """Return the ceilings as reports store them: by "cuda", or "cpu_N_threads" for each N."""
    if device.type == "cuda":
        return {place_of(device, 1): measure_ceilings(device, 1)}
    return {place_of(device, count): measure_ceilings(device, count) for count in threads}


def place_of(device: torch.device, threads: int) -> str:
    """Return the name of a device and thread count in reports."""
    return "cuda" if device.type == "cuda" else f"cpu_{threads}_threads"


def floor_of(case: Case, dtype: str, ceilings: Ceilings) -> tuple[float, str]:
    """Return the time that no implementation can beat, ms, and which ceiling sets it.

    Returns:
        ms and "memory copy", "arithmetic" or "exponentials".
    """
    flops = max(
        rate
        for name, rate in ceilings.items()
        if name in (f"gemm_{dtype}_flops_per_s", "fma_float32_flops_per_s")
    )
    times = {
        "memory copy": case.floor_bytes / ceilings["copy_bytes_per_s"],
        "arithmetic": case.floor_flops / flops,
        "exponentials": case.floor_exps / ceilings["exp_per_s"],
    }
    kind = max(times, key=lambda name: times[name])
    return 1000.0 * times[kind], kind


def _rate(work: float, run: Callable[[], object], device: torch.device) -> float:
    """Return work per second of the fastest of some calls.

    One CPU thread is measured by process CPU time, like the rows: other jobs hardly disturb it.
    """
    cuda = device.type == "cuda"
    finish = torch.cuda.synchronize if cuda else int
    alone = not cuda and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    run()
    finish()
    fastest, until = math.inf, time.perf_counter() + LONGEST
    while time.perf_counter() < until or fastest == math.inf:
        start = clock()
        for _ in range(CALLS):
            run()
        finish()
        fastest = min(fastest, clock() - start)
    return CALLS * work / fastest


def _copy_rate(device: torch.device) -> float:
    source = torch.zeros(STREAMED_BYTES // 4, device=device)
    target = torch.ones_like(source)
    return _rate(2 * STREAMED_BYTES, lambda: target.copy_(source), device)


def _read_rate(device: torch.device) -> float:
    source = torch.zeros(STREAMED_BYTES // 4, device=device)
    return _rate(STREAMED_BYTES, source.sum, device)


def _gather_rate(device: torch.device) -> float:
    rows = STREAMED_BYTES // (4 * ROW_FLOATS)
    table = torch.zeros(rows, ROW_FLOATS, device=device)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(rows, (20_000,), generator=generator).to(device)
    result = torch.empty(index.shape[0], ROW_FLOATS, device=device)
    return _rate(
        result.numel() * 4, lambda: torch.index_select(table, 0, index, out=result), device
    )


def _exp_rate(device: torch.device) -> float:
    count = EXPS_CUDA if device.type == "cuda" else EXPS * torch.get_num_threads()
    numbers = torch.linspace(-20.0, 0.0, count, device=device)
    result = torch.empty_like(numbers)
    return _rate(count, lambda: torch.exp(numbers, out=result), device)


def _loop_rate(kind: str, device: torch.device, threads: int) -> tuple[float, ...]:
    """Return the rate of a compiled loop, nothing without a compiler."""
    loop = peak_loop(kind, device, threads)
    return () if loop is None else (_rate(*loop, device),)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the best rate of a square product and of a 1 x 1 convolution, channels last."""
    size = MATRIX_CUDA if device.type == "cuda" else MATRIX
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    result = torch.empty_like(matrix)
    product = _rate(2.0 * size**3, lambda: torch.mm(matrix, matrix, out=result), device)
    if device.type == "cuda":
        return product
    image = torch.ones(1, CHANNELS, 128, 128, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    weight = torch.ones(CHANNELS, CHANNELS, 1, 1, dtype=dtype)
    work = 2.0 * 128 * 128 * CHANNELS**2
    return max(product, _rate(work, lambda: conv2d(image, weight), device))
