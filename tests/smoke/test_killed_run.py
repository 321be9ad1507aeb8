"""kill -9 in the middle of an epoch, then --resume auto: the weights of an unbroken run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from small_dsvt import CONFIG, ROOT, settings


def train(folder: Path, config: Path, changes: tuple[str, ...], *options: str) -> int:
    command = [sys.executable, str(ROOT / "tools" / "train.py"), str(config), *options]
    command += ["--deterministic", "--device", "cpu", "--work-dir", str(folder), *changes]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "engine")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    return done.returncode


def test_a_killed_dsvt_continues_to_the_same_weights(root, tmp_path):
    changes = settings(root, "train_cfg.max_epochs=2", "train_dataloader.num_workers=1")
    assert train(tmp_path / "whole", CONFIG, changes) == 0

    killed = Path(__file__).with_name("killed_dsvt_config.py")
    assert train(tmp_path / "cut", killed, changes) == -signal.SIGKILL
    assert torch.load(tmp_path / "cut" / "last.pth", weights_only=True)["epoch"] == 1
    assert train(tmp_path / "cut", CONFIG, changes, "--resume", "auto") == 0

    whole, cut = (
        torch.load(tmp_path / name / "epoch_2.pth", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
