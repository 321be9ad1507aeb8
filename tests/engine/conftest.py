"""Runs of the toy training, in this process and in others."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture
def toy_config() -> Path:
    return HERE / "toy_config.py"


@pytest.fixture
def run_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run tools/NAME.py in a process of its own, from any folder."""

    def run(*words: object, cwd: Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
        name, *arguments = (str(word) for word in words)
        launch = [sys.executable]
        if processes > 1:
            launch += ["-m", "torch.distributed.run", "--standalone"]
            launch += [f"--nproc_per_node={processes}"]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        }
        return subprocess.run(
            [*launch, str(ROOT / "tools" / f"{name}.py"), *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
