"""What a machine can do at best: memory, arithmetic, exponentials.  Floors follow from it."""

import math
import time
from collections.abc import Callable, Mapping

import torch

from perception3d.benchmark.row import Case

Ceilings = Mapping[str, float]

STREAMED_BYTES = 128 * 2**20
MATRIX = 1024  # rows and columns of the product on the CPU
MATRIX_CUDA = 8192
EXPS = 1 << 16  # fits the second-level cache of a core
EXPS_CUDA = 1 << 26
ROW_FLOATS = 192  # a row of DSVT's features
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
        rows of 192 float32, bytes read), "exp_per_s", and "gemm_DTYPE_flops_per_s" of
        float32 and bfloat16.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {
            "copy_bytes_per_s": _copy_rate(device),
            "read_bytes_per_s": _read_rate(device),
            "gather_bytes_per_s": _gather_rate(device),
            "exp_per_s": _exp_rate(device),
            **{
                f"gemm_{name}_flops_per_s": _matrix_rate(device, dtype)
                for name, dtype in MATRIX_DTYPES.items()
            },
        }
    finally:
        torch.set_num_threads(before)


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


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    size = MATRIX_CUDA if device.type == "cuda" else MATRIX
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    result = torch.empty_like(matrix)
    return _rate(2.0 * size**3, lambda: torch.mm(matrix, matrix, out=result), device)
