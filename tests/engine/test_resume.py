"""Killed and continued, repeated, split over processes: the same weights."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ToolRunner = Callable[..., object]


def weights(folder: Path, name: str = "epoch_4.pth") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)["state_dict"]


def records(folder: Path, event: str) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["event"] == event]


def test_a_killed_run_continues_to_the_same_weights(
    tmp_path: Path, toy_config: Path, run_tool: ToolRunner
) -> None:
    whole = run_tool("train", toy_config, "--deterministic", "--work-dir", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr

    killed_config = toy_config.with_name("toy_killed_config.py")
    options = ("--deterministic", "--work-dir", "cut")
    killed = run_tool("train", killed_config, *options, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "cut" / "last.pth", weights_only=True)["epoch"] == 2
    assert not (tmp_path / "cut" / "epoch_4.pth").exists()

    resumed = run_tool("train", toy_config, *options, "--resume", "auto", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "after epoch 2" in resumed.stdout
    wanted, got = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    # the metrics of the epochs trained twice agree as well
    scores = {r["epoch"]: r["toy/score"] for r in records(tmp_path / "whole", "val")}
    for record in records(tmp_path / "cut", "val"):
        assert record["toy/score"] == scores[record["epoch"]]
    assert len(records(tmp_path / "cut", "val")) == 4
    # and the best checkpoint is the same one
    best = [
        torch.load(tmp_path / f / "best.pth", weights_only=True)["epoch"] for f in ("whole", "cut")
    ]
    assert best[0] == best[1]


def test_two_processes_equal_one_with_the_same_global_batch(
    tmp_path: Path, toy_config: Path, run_tool: ToolRunner
) -> None:
    changes = ["train_cfg.max_epochs=2", "model.net.dropout=0.0"]
    one = run_tool(
        *("train", toy_config, "--deterministic", "--work-dir", "one"),
        *("--cfg-options", *changes),
        cwd=tmp_path,
    )
    assert one.returncode == 0, one.stderr
    two = run_tool(
        *("train", toy_config, "--deterministic", "--work-dir", "two", "--device", "cpu"),
        *("--cfg-options", *changes, "train_dataloader.batch_size=2"),
        cwd=tmp_path,
        processes=2,
    )
    assert two.returncode == 0, two.stderr
    assert records(tmp_path / "two", "start")[0]["processes"] == 2
    wanted = weights(tmp_path / "one", "epoch_2.pth")
    got = weights(tmp_path / "two", "epoch_2.pth")
    for name in wanted:
        # float32 sums in another order, six optimiser steps; measured 1e-6
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-5, atol=1e-5, msg=name)
    for left, right in zip(
        records(tmp_path / "one", "val"), records(tmp_path / "two", "val"), strict=True
    ):
        assert left["toy/frames"] == right["toy/frames"] == 5.0
        assert left["toy/score"] == pytest.approx(right["toy/score"], abs=1e-5)
    for left, right in zip(
        records(tmp_path / "one", "train"), records(tmp_path / "two", "train"), strict=True
    ):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)  # averaged over processes
