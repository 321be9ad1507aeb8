"""What a run was measured on."""

import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

COPIED_BYTES = 128 * 2**20


def describe_machine() -> dict[str, object]:
    """Return versions, processor, load and commit."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_1_minute": os.getloadavg()[0],
    }


def copy_bandwidth(threads: int) -> float:
    """Measure the memory ceiling: bytes read plus written per second by a large copy."""
    source = torch.zeros(COPIED_BYTES // 4)
    target = torch.ones_like(source)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    fastest = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        target.copy_(source)
        fastest = min(fastest, time.perf_counter() - start)
    torch.set_num_threads(before)
    return 2 * COPIED_BYTES / fastest


def _commit() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an installed package, or no git
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
