"""What a run was measured on."""

import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from perception3d.errors import UserError


def describe_machine() -> dict[str, object]:
    """Return versions, processor, load, commit, and how idle OpenMP threads wait."""
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
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }


def describe_device(device: torch.device) -> str:
    """Return the name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor()


def check_device(name: str) -> None:
    """Raise unless a device given on a command line can be measured.

    Raises:
        UserError: another kind than cpu and cuda, or no such CUDA device.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UserError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees no such CUDA device; use --device cpu"
        )


def _commit() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an installed package, or no git
        return None


def _processor() -> str:
    """Return the processor's name; hosts may hide all but the maker's, so with its generation."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    pairs = [line.split(":", 1) for line in reversed(lines) if ":" in line]
    facts = {key.strip(): value.strip() for key, value in pairs}
    if "model name" not in facts:
        return platform.processor()
    if not {"cpu family", "model"} <= facts.keys():
        return facts["model name"]
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
