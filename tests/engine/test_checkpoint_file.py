import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from perception3d.engine.checkpoint_file import (
    link_as_last,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    write_whole,
)
from perception3d.errors import UserError


def test_round_trip_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "epoch_1.pth"
    save_checkpoint(path, {"state_dict": {"w": torch.arange(3)}, "epoch": 1, "score": None})
    content = torch.load(path, weights_only=True)
    assert content["epoch"] == 1
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_1.pth"]


@pytest.mark.parametrize("value", [np.float64(1.0), {1, 2}, Path("x")])
def test_what_would_not_load_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"checkpoint\['deep'\]\[0\] must be"):
        save_checkpoint(tmp_path / "a.pth", {"deep": [value]})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "epoch_1.pth"
    save_checkpoint(path, {"epoch": 1})

    def fail(content: object, file: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"epoch": 2})
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_1.pth"]


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_whole(path, b"old")
    # the process dies when the content is on disk under the temporary name
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from perception3d.engine import checkpoint_file\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint_file.write_whole(Path(sys.argv[1]), b'new')\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.pth: (not a readable|holds more than weights)"):
        read_checkpoint(path)


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    save_checkpoint(path, {"state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cut\.pth: "):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="could execute code"):
        read_checkpoint(tmp_path / "trap.pth")
    assert not (tmp_path / "executed").exists()


def test_weights_must_fit_and_nothing_is_loaded_half() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1.0 for name, value in before.items()}
    del state["1.bias"]
    state["0.weight"] = torch.zeros(4, 2)
    state["head.bias"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        load_weights(model, {"state_dict": state}, "x.pth")
    text = str(caught.value)
    assert text.startswith("x.pth: a checkpoint of another model; of 4 entries 1 missing")
    assert "(first: 1.bias)" in text
    assert "1 unexpected (first: head.bias)" in text
    assert "1 of another shape (first: 0.weight (4, 2) instead of (3, 2))" in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("links", [True, False])
def test_last_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    for epoch in (1, 2):
        path = tmp_path / f"epoch_{epoch}.pth"
        save_checkpoint(path, {"epoch": epoch})
        link_as_last(path)
        assert read_checkpoint(tmp_path / "last.pth")["epoch"] == epoch
    assert {p.name for p in tmp_path.iterdir()} == {"epoch_1.pth", "epoch_2.pth", "last.pth"}
    assert read_checkpoint(tmp_path / "epoch_1.pth")["epoch"] == 1
    (tmp_path / "epoch_2.pth").unlink()
    assert read_checkpoint(tmp_path / "last.pth")["epoch"] == 2
