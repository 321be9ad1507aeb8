"""Bad input ends with one clear line and exit code 1 or 2, and leaves nothing behind."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ToolCall = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has nothing to do with the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy_config(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = ROOT / "tests" / "engine"
    monkeypatch.syspath_prepend(str(folder))  # the toy classes are named in it
    return folder / "toy_config.py"


def one_line(err: str) -> str:
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--cfg-options", "model.net.chanels=3"],
            "error: model.net (ToyNet): no argument 'chanels'; did you mean 'channels'?",
        ),
        (
            ["--cfg-options", "train_cfg.max_epoch=3"],
            "error: train_cfg: no key 'max_epoch'; did you mean 'max_epochs'?",
        ),
        (
            ["--cfg-options", "model.net.type=toy_training.ToyNett"],
            "error: model.net: toy_training: no name 'ToyNett'; did you mean 'ToyNet'?",
        ),
        (
            ["--cfg-options", "train_dataloader.dataset.sise=3"],
            "error: train_dataloader.dataset (ToyDataset): no argument 'sise'; "
            "did you mean 'size'?",
        ),
        (["--device", "tpu"], "error: --device tpu: must be cpu, cuda or cuda:N"),
        (["--amp", "fp16", "--device", "cpu"], "error: --amp fp16 needs a CUDA device"),
        (["--resume", "nowhere.pth"], "error: no such checkpoint: nowhere.pth; check the path"),
        (["--auto-scale-lr"], "error: --auto-scale-lr: the config does not say"),
    ],
)
def test_training_is_refused(
    work: Path, toy_config: Path, run_tool: ToolCall, options: list[str], message: str
) -> None:
    code, _, err = run_tool("train", toy_config, *options)
    assert code == 1
    assert one_line(err).startswith(message)
    assert list(work.iterdir()) == []


def test_a_missing_config(work: Path, run_tool: ToolCall) -> None:
    code, _, err = run_tool("train", "nowhere.py")
    assert code == 1
    assert one_line(err).startswith("error: no such config file: nowhere.py")


@pytest.mark.parametrize("options", [["--sed", "1"], ["--seed", "x"], ["--amp", "int8"], []])
def test_wrong_usage(toy_config: Path, run_tool: ToolCall, options: list[str]) -> None:
    config = [toy_config] if options else []
    code, _, err = run_tool("train", *config, *options)
    assert code == 2
    assert "Traceback" not in err


def test_a_checkpoint_of_another_model(work: Path, toy_config: Path, run_tool: ToolCall) -> None:
    code, _, err = run_tool("train", toy_config, "--cfg-options", "train_cfg.max_epochs=1")
    assert code == 0, err
    checkpoint = work / "work_dirs" / "toy_config" / "last.pth"
    stored = checkpoint.read_bytes()
    code, _, err = run_tool(
        *("test", toy_config, checkpoint, "--out", "figures"),
        *("--cfg-options", "model.net.channels=5"),
    )
    assert code == 1
    assert "a checkpoint of another model; of 8 entries 6 of another shape" in one_line(err)
    assert list((work / "figures").iterdir()) == []
    assert checkpoint.read_bytes() == stored


@pytest.mark.parametrize("content", [b"", b"this is no checkpoint", b"\x80\x02."])
def test_a_broken_checkpoint(
    work: Path, toy_config: Path, run_tool: ToolCall, content: bytes
) -> None:
    (work / "broken.pth").write_bytes(content)
    code, _, err = run_tool("test", toy_config, "broken.pth")
    assert code == 1
    assert one_line(err).startswith("error: broken.pth: ")
    assert [p.name for p in work.iterdir()] == ["broken.pth"]


def test_debug_shows_the_traceback(toy_config: Path, run_tool: ToolCall) -> None:
    code, _, err = run_tool("test", toy_config, "nowhere.pth", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("error: no such checkpoint: nowhere.pth")


def test_print_config_lists_every_mistake(toy_config: Path, run_tool: ToolCall) -> None:
    code, out, err = run_tool("print_config", toy_config)
    assert code == 0, err
    assert "'type': 'toy_training.ToyNet'" in out
    code, _, err = run_tool(
        "print_config", toy_config, "--cfg-options", "model.net.chanels=3", "train_cfg.epochs=2"
    )
    assert code == 1
    assert "no argument 'chanels'; did you mean 'channels'" in err
    assert "train_cfg: no key 'epochs'; did you mean 'max_epochs'" in err


@pytest.mark.parametrize("name", ["train", "test", "print_config", "model_info", "benchmark"])
def test_help_is_quick_and_works_from_any_folder(work: Path, name: str) -> None:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "tools" / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=work,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "mmengine", "numpy"} & loaded
    assert time.perf_counter() - start < 10  # a second; ten on a busy machine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linear"], "error: rows: no row 'linear'; did you mean 'linear/"),
        (["linear/*", "nothing*"], "error: rows: no row 'nothing*'; "),
        (["--workload", "f100"], "error: --workload: no workload 'f100'; did you mean 'f10'?"),
    ],
)
def test_benchmark_of_rows_that_do_not_exist(
    arguments: list[str], message: str, run_tool: ToolCall, work: Path
) -> None:
    code, _, err = run_tool("benchmark_ops", *arguments)
    assert code == 1
    assert one_line(err).startswith(message)
