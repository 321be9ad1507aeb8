"""Every golden case that this stack can replay, at its stated tolerance.

The folder is $P3D_GOLDEN, else ../shared/golden beside the repository.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perception3d.parity import Case, CaseError, case_folders, read_cases, run_case
from perception3d.parity.kinds import find_kind

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("P3D_GOLDEN", ROOT.parent / "shared" / "golden"))
pytestmark = pytest.mark.golden


def golden_cases() -> list:
    if not GOLDEN.is_dir():
        skip = pytest.mark.skip(reason=f"no golden vectors in {GOLDEN} (set P3D_GOLDEN)")
        return [pytest.param(None, id="absent", marks=skip)]
    cases = [case for folder in case_folders(GOLDEN) for case in read_cases(folder)]
    return [pytest.param(case, id=f"{case.path.parent.name}-{case.name}") for case in cases]


@pytest.mark.parametrize("case", golden_cases())
def test_case_is_within_its_tolerances(case: Case):
    try:
        find_kind(case)
    except CaseError as error:
        pytest.skip(str(error))
    outcome = run_case(case, torch.device("cpu"))
    assert outcome.passed, "\n".join(outcome.failures)


def run_tool(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools" / "check_parity.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_tool_refuses_a_wrong_path(tmp_path: Path):
    result = run_tool(str(tmp_path / "nowhere"))
    assert result.returncode == 2
    assert "is not a folder" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden vectors in {GOLDEN}")
def test_tool_passes_one_case_and_fails_a_spoilt_one(tmp_path: Path):
    assert run_tool(str(GOLDEN / "dsvt"), "--case", "set_single_voxel").returncode == 0
    text = (GOLDEN / "dsvt" / "cases.json").read_text()
    (tmp_path / "cases.json").write_text(text.replace('"set_size": [8]', '"set_size": [4]'))
    data = (GOLDEN / "dsvt" / "set_single_voxel.npz").read_bytes()
    (tmp_path / "set_single_voxel.npz").write_bytes(data)
    result = run_tool(str(tmp_path), "--case", "set_single_voxel")
    assert result.returncode == 1
    assert "shape must be (2, 1, 8), got (2, 1, 4)" in result.stdout
