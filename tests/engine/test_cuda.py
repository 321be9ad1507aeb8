"""What only a CUDA device can show."""

from pathlib import Path

import pytest
import torch

from perception3d.engine.options import RunOptions
from perception3d.engine.run import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def final(folder: Path) -> dict:
    return torch.load(folder / "last.pth", weights_only=True, map_location="cpu")


@pytest.mark.parametrize("amp", [None, "bf16", "fp16"])
def test_training_in_each_precision(tmp_path: Path, toy_config: Path, amp: str | None) -> None:
    options = RunOptions(work_dir=str(tmp_path), quiet=True, device="cuda", amp=amp)
    train(toy_config, ["model.net.dropout=0.0"], options)
    stored = final(tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in stored["state_dict"].values())
    assert ("loss_scaler" in stored["optimizer"]) is (amp == "fp16")


def test_a_continued_run_ends_with_the_same_weights(tmp_path: Path, toy_config: Path) -> None:
    def options(name: str, **more: str) -> RunOptions:
        folder = str(tmp_path / name)
        return RunOptions(work_dir=folder, quiet=True, device="cuda", deterministic=True, **more)

    train(toy_config, ["checkpoint.keep=0"], options("whole"))
    train(toy_config, [], options("rest", resume=str(tmp_path / "whole" / "epoch_2.pth")))
    whole, rest = final(tmp_path / "whole"), final(tmp_path / "rest")
    assert all(
        torch.equal(value, rest["state_dict"][name]) for name, value in whole["state_dict"].items()
    )
