"""The command line of tools/create_data.py."""

import subprocess
import sys
from pathlib import Path

import perception3d
from perception3d.data.info_file import InfoFile

TOOL = Path(perception3d.__file__).resolve().parents[1] / "tools" / "create_data.py"


def create_data(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def test_from_any_folder_with_processes(tiny, tmp_path):
    out = tmp_path / "infos"
    done = create_data(
        *("nuscenes", "--root-path", tiny.root, "--version", tiny.version, "--out-dir", out),
        *("--split", "mini_train", "--max-sweeps", 4, "--workers", 2, "--extra-tag", "small"),
        "--no-cameras",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no bar without a terminal
    info = InfoFile(out / "small_infos_mini_train.jsonl")
    assert done.stdout.splitlines() == [
        f"{info.path}: 5 frames of 2 scenes (8 in split mini_train), "
        f"{sum(info.header['num_boxes'].values())} boxes"
    ]
    record = info.record(2)
    assert len(record["sweeps"]) == 4
    assert record["cameras"] == {}


def test_failure_is_one_line(tiny, tmp_path):
    wrong = ("nuscenes", "--root-path", tiny.root, "--version", "v1.0-maxi")
    failed = create_data(*wrong, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert "no tables of version v1.0-maxi" in failed.stderr
    assert "Traceback" in create_data(*wrong, "--debug", cwd=tmp_path).stderr
    negative = create_data(*wrong[:-1], tiny.version, "--max-sweeps", -1, cwd=tmp_path)
    assert "max_sweeps must be >= 0, got -1" in negative.stderr
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage(tmp_path):
    for arguments in ((), ("nuscens",), ("nuscenes",)):
        assert create_data(*arguments, cwd=tmp_path).returncode == 2
