"""One simulated data set and one untrained DSVT checkpoint for all smoke tests."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_dsvt import CONFIG, ROOT, SMALL, VERSION, Ended


@pytest.fixture
def tool(capfd, monkeypatch, tmp_path):
    """Call tools/NAME.py in this process, from an empty folder."""
    from perception3d.engine import cli

    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> Ended:
        spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(module.main, module.parser(), [str(argument) for argument in arguments])
        return Ended(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A simulated data root with info files; do not change it."""
    folder = tmp_path_factory.mktemp("simulated") / "data"
    simulate = ("synthetic", "--out-dir", folder, "--scenes", 2, "--val-scenes", 1)
    simulate += ("--frames-per-scene", 2, "--sweeps-per-keyframe", 2)
    create_data(*simulate, "--no-images", "--no-occupancy", "--workers", 1)
    create_data("nuscenes", "--root-path", folder, "--version", VERSION, "--workers", 1)
    return folder


def create_data(*arguments: object) -> None:
    """Run tools/create_data.py in a process of its own: Open3D keeps threads."""
    command = [sys.executable, str(ROOT / "tools" / "create_data.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def damaged_root(root, tmp_path) -> Path:
    """A copy of the data root that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "damaged"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Untrained weights of the small DSVT."""
    from perception3d.engine.build import build
    from perception3d.engine.config import load_config, plain

    torch.manual_seed(0)
    model = build(plain(load_config(CONFIG, SMALL))["model"])
    path = tmp_path_factory.mktemp("weights") / "dsvt.pth"
    torch.save({"state_dict": dict(model.state_dict())}, path)
    return path
