"""Whole runs in this process."""

import json
import math
from pathlib import Path

import pytest
import torch

from perception3d.engine.finite import NonFiniteError
from perception3d.engine.network import load_dataset, load_network
from perception3d.engine.options import RunOptions, TestOptions
from perception3d.engine.run import evaluate, figures, train
from perception3d.errors import UserError

QUICK = ["train_cfg.max_epochs=1"]


def options(folder: Path, **changes: object) -> RunOptions:
    return RunOptions(work_dir=str(folder), quiet=True, device="cpu", **changes)


def run(config: Path, folder: Path, *changes: str, **more: object) -> dict[str, float]:
    return train(config, [*QUICK, *changes], options(folder, **more))


def test_train_then_test(tmp_path: Path, toy_config: Path) -> None:
    seconds = train(toy_config, [], options(tmp_path / "a"))
    assert set(seconds) == {"train", "val"}
    names = {p.name for p in (tmp_path / "a").glob("*.pth")}
    assert names == {"epoch_2.pth", "epoch_3.pth", "epoch_4.pth", "best.pth", "last.pth"}
    content = torch.load(tmp_path / "a" / "epoch_4.pth", weights_only=True)
    assert content["epoch"] == 4
    assert content["seed"] == 3
    assert len(content["config_hash"]) == 12
    assert "ToyNet" in content["config"]

    found = evaluate(
        toy_config,
        [],
        options(tmp_path / "a"),
        TestOptions(str(tmp_path / "a"), eval_all=True),
    )
    log = [json.loads(x) for x in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    scores = {f"epoch_{r['epoch']}.pth": r["toy/score"] for r in log if r["event"] == "val"}
    assert list(found) == ["epoch_2.pth", "epoch_3.pth", "epoch_4.pth"]
    for name, metrics in found.items():
        assert metrics["toy/score"] == scores[name]


def test_the_seed_decides_the_weights(tmp_path: Path, toy_config: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(toy_config, tmp_path / name, seed=seed)
    a, b, c = (
        torch.load(tmp_path / n / "epoch_1.pth", weights_only=True)["state_dict"] for n in "abc"
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["net.head.weight"], c["net.head.weight"])


def test_amp_trains_on_the_cpu(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path, amp="bf16")
    state = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert state["net.head.weight"].dtype is torch.float32


def test_load_from_starts_with_the_weights(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path / "a")
    run(
        *(toy_config, tmp_path / "b", "optim_wrapper.optimizer.lr=0.0"),
        load_from=str(tmp_path / "a" / "best.pth"),
    )
    a, b = (torch.load(tmp_path / n / "epoch_1.pth", weights_only=True)["state_dict"] for n in "ab")
    assert torch.equal(a["net.head.weight"], b["net.head.weight"])


def test_auto_scale_lr(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path, "auto_scale_lr.base_batch_size=8", auto_scale_lr=True)
    state = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    (group,) = state["optimizer"]["optimizer"]["param_groups"]
    assert group["initial_lr"] == pytest.approx(0.02 * 4 / 8)
    with pytest.raises(UserError, match="base_batch_size=N"):
        run(toy_config, tmp_path, auto_scale_lr=True)


def test_a_nan_stops_the_run_and_leaves_the_last_checkpoint(
    tmp_path: Path, toy_config: Path
) -> None:
    with pytest.raises(NonFiniteError, match="first in the output|loss loss_height is"):
        train(toy_config, ["model.net.poison_at=4"], options(tmp_path))
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    assert state["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in state["state_dict"].values())


def test_a_new_run_is_not_continued_from_an_old_one(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path)
    with pytest.raises(NonFiniteError):
        train(toy_config, ["model.net.poison_at=0"], options(tmp_path))
    assert not (tmp_path / "last.pth").exists()


def test_resume_checks(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path)
    with pytest.raises(UserError, match="was trained with seed 3; leave --seed out"):
        run(toy_config, tmp_path, seed=4, resume="auto")
    with pytest.raises(UserError, match="holds weights only and cannot be continued"):
        run(toy_config, tmp_path, resume=str(tmp_path / "best.pth"))
    with pytest.raises(UserError, match="a checkpoint of another model"):
        run(toy_config, tmp_path, "model.net.channels=4", resume="auto")


def test_resume_auto_without_a_checkpoint_starts(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path, resume="auto")
    assert (tmp_path / "epoch_1.pth").is_file()


def test_a_finished_run_is_validated_again(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path)
    run(toy_config, tmp_path, resume="auto")
    log = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [r["toy/score"] for r in log if r["event"] == "val"]
    assert len(scores) == 2
    assert scores[0] == scores[1]


def test_dry_run_stores_nothing(
    tmp_path: Path, toy_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(toy_config, [], RunOptions(quiet=True, device="cpu"), dry_run=True)
    assert list(tmp_path.iterdir()) == []


def test_the_log(tmp_path: Path, toy_config: Path) -> None:
    train(toy_config, [], options(tmp_path))
    log = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["event"] for r in log if r["event"] != "train"] == ["start", *["val"] * 4, "end"]
    steps = [r for r in log if r["event"] == "train"]
    assert [r["step"] for r in steps] == [2, 4, 6, 8, 10, 12]  # interval 2
    assert steps[-1]["epoch"] == 4
    assert steps[-1]["eta_s"] == 0.0
    for record in steps:
        assert record["loss"] == pytest.approx(record["loss_height"])
        assert math.isfinite(record["grad_norm"])
        assert record["step_s"] >= record["data_s"] > 0
    assert list(log[-1]["seconds"]) == ["train", "val"]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_figures_are_kept(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path / "a")
    settings = TestOptions(str(tmp_path / "a" / "last.pth"), out=str(tmp_path / "figures"))
    evaluate(toy_config, [], options(tmp_path / "a"), settings)
    stored = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert stored["frames"] == 5.0
    assert stored["checkpoint"].endswith("last.pth")


def test_figures_of_classes() -> None:
    metrics = {"nuscenes/mAP": 0.5, "nuscenes/car/AP": 0.7, "nuscenes/car/ATE": 0.2}
    assert figures(metrics) == {"mAP": 0.5, "per_class": {"car": {"AP": 0.7, "ATE": 0.2}}}


def test_format_only_needs_a_folder(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path)
    with pytest.raises(UserError, match="--format-only needs --out DIR"):
        evaluate(
            *(toy_config, [], options(tmp_path)),
            TestOptions(str(tmp_path / "last.pth"), format_only=True),
        )


def test_networks_load_without_a_runner(tmp_path: Path, toy_config: Path) -> None:
    run(toy_config, tmp_path)
    net = load_network(toy_config, tmp_path / "best.pth", "cpu")
    assert not net.training
    state = torch.load(tmp_path / "best.pth", weights_only=True)["state_dict"]
    assert torch.equal(net.head.weight, state["net.head.weight"])
    assert len(load_dataset(toy_config)) == 5
    with pytest.raises(UserError, match="no section 'vla_dataloader'"):
        load_dataset(toy_config, "vla")
