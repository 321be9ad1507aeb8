"""tools/gpu_check.sh without a GPU: its steps, its skips, and what the operators' part needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONLY_TORCH = Path(__file__).with_name("only_torch.py")
PYTHON = """#!/usr/bin/env bash
# Plays a Python with a CUDA device: says what it is asked, and writes down what it should run.
case "$*" in
  *get_device_name*) echo "NVIDIA H200 (pretended)" ;;
  *get_device_capability*) echo 9.0 ;;
  *find_spec*) [[ "$MISSING" != *$(sed "s/.*find_spec('\\([a-z]*\\)'.*/\\1/" <<< "$2")* ]]; exit ;;
  *) echo "$*" >> "$RECORD"; [[ -z "$BREAK" || "$*" != *$BREAK* ]]; exit ;;
esac
"""
SANITIZER = """#!/bin/sh
while [ "$1" != -m ]; do shift; done
exec python memory "$@"
"""


@pytest.fixture
def gpu_check(tmp_path):
    """Run the script with a pretended Python: (exit code, output, what Python was to run)."""
    record = tmp_path / "record"
    for name, text in {
        "python": PYTHON,
        "compute-sanitizer": SANITIZER,
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(missing="", broken="", golden=tmp_path):
        record.write_text("")
        environment = {
            **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")},
            **{"RECORD": str(record), "MISSING": missing, "BREAK": broken},
            **{"P3D_GOLDEN": str(golden), "P3D_WORKLOADS": "tiny f1"},
        }
        script = ROOT / "tools" / "gpu_check.sh"
        done = subprocess.run(
            [script], env=environment, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout + done.stderr, record.read_text().splitlines()

    return run


def test_all_steps_in_order(gpu_check, tmp_path):
    code, out, steps = gpu_check()
    assert code == 0, out
    wanted = (
        "setup.py build_ext --inplace",
        "-m pytest tests/ops --shadow cuda",
        "-m pytest -m gpu tests/simt tests/ops tests/benchmark tests/layers tests/models",
        f"tools/check_parity.py {tmp_path} --device cuda --known",
        "memory -m pytest -m gpu tests/benchmark -k tiny",
        "memory -m pytest -m gpu tests/benchmark -k tiny",
        "tools/benchmark_ops.py --device cuda --workload tiny f1 --json benchmarks/results/",
    )
    assert len(steps) == len(wanted)
    for step, start in zip(steps, wanted, strict=True):
        assert step.startswith(start)
    assert steps[2].endswith("tests/parity tests/engine")
    assert "/nvidia-h200-pretended-" in steps[-1]
    assert "all passed" in out


def test_missing_packages_are_named_and_cost_nothing_else(gpu_check, tmp_path):
    code, out, steps = gpu_check(missing="spconv mmengine nuscenes", golden=tmp_path / "nowhere")
    assert code == 0
    assert "skipped the comparison with spconv: spconv is not installed" in out
    assert "skipped tests/engine: mmengine is not installed" in out
    assert "skipped tests/parity: nuscenes is not installed" in out
    assert "skipped parity: no golden vectors" in out
    assert steps[2].endswith("tests/models")
    assert len(steps) == 6


@pytest.mark.parametrize("broken", ["setup.py", "--shadow", "benchmark_ops"])
def test_a_failure_is_told_and_does_not_end_the_run(gpu_check, broken):
    code, out, steps = gpu_check(broken=broken)
    assert code == 1
    assert len(steps) == 7
    assert f"{broken}" in out.split("gpu-check: FAILED:")[-1]


def test_without_a_device_it_says_so():
    done = subprocess.run(
        [ROOT / "tools" / "gpu_check.sh"],
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "gpu-check: no CUDA device" in done.stderr


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (
            "-m pytest --collect-only -q tests/ops tests/benchmark tests/layers tests/models",
            "test_",
        ),
        ("-m pytest tests/ops/test_box_overlap.py -k shapely", "3 skipped"),
        ("tools/benchmark_ops.py segment_reduce/max_64 --workload tiny --rounds 1", "max_64"),
        ("tools/roofline.py --help", "--threads"),
        ("tools/check_parity.py --help", "--known"),
    ],
)
def test_operators_need_torch_numpy_and_pytest_only(command, wanted):
    done = subprocess.run(
        [sys.executable, ONLY_TORCH, *command.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert wanted in done.stdout
