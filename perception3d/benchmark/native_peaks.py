"""Peak rates of multiply-adds and exponentials, by loops compiled for the machine at hand."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "benchmark"
ROUNDS = {"fma": 1_000_000, "exp": 20_000}  # a few ms on the CPU
ROUNDS_CUDA = {"fma": 100_000, "exp": 20_000}


@cache
def load_peaks(cuda: bool) -> ctypes.CDLL | None:
    """Compile the loops and load them.

    Args:
        cuda: for the current CUDA device instead of the CPU.

    Returns:
        The library; None without the sources (an installed wheel) or without a compiler.
    """
    command = _nvcc_command() if cuda else _host_command()
    if command is None or not SOURCES.is_dir():
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peaks.so"
        finished = subprocess.run([*command, "-o", str(target)], capture_output=True, check=False)
        if finished.returncode != 0:
            return None
        library = ctypes.CDLL(str(target))  # stays mapped when the file is gone
    for kind in ("fma", "exp"):
        getattr(library, f"p3d_{kind}_round").restype = ctypes.c_int64
        loop = getattr(library, f"p3d_{kind}_loop")
        loop.restype = ctypes.c_int if cuda else ctypes.c_float
        loop.argtypes = [ctypes.c_int64, ctypes.c_void_p if cuda else ctypes.c_int]
    return library


def peak_loop(
    kind: str, device: torch.device, threads: int
) -> tuple[float, Callable[[], object]] | None:
    """Return the operations of one call, and the call.

    Args:
        kind: "fma" (multiplications and additions) or "exp" (exponentials).
        device: CPU or CUDA.
        threads: of the CPU.

    Returns:
        None where `load_peaks` returns None.
    """
    library = load_peaks(device.type == "cuda")
    if library is None:
        return None
    loop: Callable[..., object] = getattr(library, f"p3d_{kind}_loop")
    per_round = int(getattr(library, f"p3d_{kind}_round")())
    if device.type == "cuda":
        sink = torch.zeros(1, device=device)
        rounds = ROUNDS_CUDA[kind]
        return float(per_round * rounds), lambda: _checked(loop(rounds, sink.data_ptr()))
    return float(per_round * ROUNDS[kind] * threads), lambda: loop(ROUNDS[kind], threads)


def _checked(code: object) -> None:
    if code != 0:
        raise RuntimeError(f"CUDA error {code} in a loop of csrc/benchmark/peaks.cu")


def _host_command() -> list[str] | None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return None
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
    return [compiler, *flags, str(SOURCES / "peaks.cpp")]


def _nvcc_command() -> list[str] | None:
    home = os.environ.get("CUDA_HOME")
    compiler = shutil.which("nvcc") or (shutil.which(f"{home}/bin/nvcc") if home else None)
    if compiler is None:
        return None
    major, minor = torch.cuda.get_device_capability()
    flags = ["-O3", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler", "-fPIC"]
    return [compiler, *flags, str(SOURCES / "peaks.cu")]
