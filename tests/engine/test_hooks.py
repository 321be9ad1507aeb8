import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_training import ToyNet

from perception3d.engine.hooks import CheckpointHook, EpochHook, FadeHook, MemoryHook
from perception3d.engine.options import RunOptions
from perception3d.engine.run import train
from perception3d.structures import Sample
from perception3d.transforms import Pipeline, RandomFlip, ShufflePoints


class Paste(RandomFlip):
    """Stands for the pasting of objects."""


def runner_with(pipeline: Pipeline, epoch: int, epochs: int = 5) -> SimpleNamespace:
    dataset = SimpleNamespace(dataset=SimpleNamespace(pipeline=pipeline))
    return SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=dataset), epoch=epoch, max_epochs=epochs
    )


def names(pipeline: Pipeline) -> list[str]:
    return [type(step).__name__ for step in pipeline.transforms]


def test_fade_leaves_transforms_out_in_the_last_epochs() -> None:
    pipeline = Pipeline([Paste(), ShufflePoints()])
    hook = FadeHook(2, ("Paste",))
    hook.before_train(runner_with(pipeline, 0))
    for epoch, wanted in ((0, True), (2, True), (3, False), (4, False)):
        hook.before_train_epoch(runner_with(pipeline, epoch))
        assert ("Paste" in names(pipeline)) is wanted
        assert "ShufflePoints" in names(pipeline)


def test_a_resumed_run_fades_as_well() -> None:
    pipeline = Pipeline([Paste(), ShufflePoints()])
    FadeHook(2, ("Paste",)).before_train_epoch(runner_with(pipeline, 4))
    assert names(pipeline) == ["ShufflePoints"]


def test_fading_what_is_not_there_is_an_error_at_the_start() -> None:
    with pytest.raises(ValueError, match="no transform 'Pasta' .* there are Paste"):
        FadeHook(1, ["Pasta"]).before_train(runner_with(Pipeline([Paste()]), 0))
    with pytest.raises(ValueError, match="last_epochs must be >= 1, got 0"):
        FadeHook(0, ["Paste"])


def test_epochs_restart_the_random_streams() -> None:
    told = []
    loader = SimpleNamespace(
        batch_sampler=SimpleNamespace(set_epoch=lambda e: told.append(("order", e))),
        dataset=SimpleNamespace(set_epoch=lambda e: told.append(("data", e))),
    )

    def draw(epoch: int, rank: int, seed: int = 1) -> tuple[float, float]:
        hook = EpochHook(seed)
        hook.before_train_epoch(SimpleNamespace(epoch=epoch, rank=rank, train_dataloader=loader))
        return float(torch.rand(())), float(np.random.rand())  # noqa: NPY002  # third-party code draws so

    first = draw(3, 0)
    assert told == [("order", 3), ("data", 3)]
    assert draw(3, 0) == first
    others = [draw(4, 0), draw(3, 1), draw(3, 0, seed=2)]
    assert len({first, *others}) == 4


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path, toy_config: Path) -> None:
    options = RunOptions(work_dir=str(tmp_path), quiet=True, device="cpu")
    train(toy_config, ["checkpoint.keep=1", "checkpoint.interval=3"], options)
    assert {p.name for p in tmp_path.glob("*.pth")} == {"epoch_4.pth", "last.pth", "best.pth"}
    assert (tmp_path / "last.pth").samefile(tmp_path / "epoch_4.pth")


def test_a_metric_that_does_not_exist_is_named(tmp_path: Path, toy_config: Path) -> None:
    options = RunOptions(work_dir=str(tmp_path), quiet=True, device="cpu")
    with pytest.raises(ValueError, match="no metric 'NDS', got toy/score, toy/frames"):
        train(toy_config, ["checkpoint.best=NDS"], options)


@pytest.mark.parametrize("options", [{"interval": 0}, {"keep": -1}])
def test_checkpoint_settings(options: dict) -> None:
    with pytest.raises(ValueError, match="interval must be >= 1 and keep >= 0"):
        CheckpointHook(**options)


def test_sample_of_a_batch() -> None:
    from perception3d.data.collate import collate
    from perception3d.engine.hooks.drawing import sample_of

    samples = [
        Sample(f"f{i}", torch.full((i, 5), float(i)), torch.eye(4, dtype=torch.float64) * i)
        for i in (3, 0, 2)
    ]
    batch = collate(samples)["batch"]
    for frame, sample in enumerate(samples):
        got = sample_of(batch, frame)
        assert got.token == sample.token
        assert torch.equal(got.points, sample.points)
        assert torch.equal(got.lidar_to_global, sample.lidar_to_global)


def test_toy_net_is_what_trainable_asks_for() -> None:
    assert {"loss", "predict", "forward"} <= set(dir(ToyNet()))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no malloc_trim")
@pytest.mark.parametrize("phase", ["train", "val", "test"])
def test_memory_between_blocks_in_use_goes_back(phase: str) -> None:
    # Blocks below the limit from which on the C library maps each by itself.
    blocks = [bytearray(100_000) for _ in range(2000)]
    del blocks[::2]
    hook, runner = MemoryHook(interval=3), SimpleNamespace()
    before = resident_bytes()
    for step in range(3):
        assert resident_bytes() > before - 20_000_000
        getattr(hook, f"after_{phase}_iter")(runner, step, {}, {})
    assert resident_bytes() < before - 80_000_000
    assert len(blocks) == 1000
