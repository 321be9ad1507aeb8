"""Checkpoint files: written whole or not at all, and readable without executing anything."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perception3d.errors import UserError

LAST = "last.pth"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: a killed write leaves no part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Store a checkpoint of tensors, numbers, strings, lists and dicts, whole or not at all.

    Raises:
        TypeError: something in it would not load with `weights_only=True`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    check_plain(content)
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_plain(value: Any, where: str = "checkpoint") -> None:
    """Raise TypeError unless a value holds only what `torch.load` reads as weights."""
    if isinstance(value, dict):
        for key, entry in value.items():
            check_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            check_plain(entry, f"{where}[{index}]")
    elif not (value is None or type(value) in (bool, int, float, str) or torch.is_tensor(value)):
        raise TypeError(
            f"{where} must be a tensor, number, string, list or dict, got {type(value).__name__}"
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with `weights_only=True`.

    Raises:
        UserError: no such file, damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than weights, or is damaged; it is not loaded, because loading "
            f"it could execute code (--debug names the content)"
        ) from error
    except Exception as error:  # bytes that are no pickle fail in any way
        raise UserError(
            f"{path}: not a readable checkpoint (damaged or cut short); copy or train it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}, not a checkpoint; name a file that "
            "tools/train.py wrote"
        )
    return content


def load_weights(model: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Load weights strictly: same names, same shapes; otherwise the model stays as it is.

    Args:
        model: gets the weights.
        state: a state dict, or a checkpoint with the entry "state_dict".
        path: where it came from, for messages.

    Raises:
        UserError: the checkpoint is one of another model.
    """
    check_fit(model, state, path)
    model.load_state_dict(state.get("state_dict", state))


def check_fit(model: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Refuse the checkpoint of another model; counts and first names are told.

    Args: as `load_weights`.

    Raises:
        UserError: names or shapes differ.
    """
    state = state.get("state_dict", state)
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} {kind} (first: {names[0]})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{path}: a checkpoint of another model; of {len(wanted)} entries "
            f"{', '.join(problems)}; use the config it was trained with "
            f"(official checkpoints: tools/convert_checkpoint.py)"
        )


def link_as_last(checkpoint: Path) -> None:
    """Let `last.pth` beside a checkpoint be that checkpoint, without a moment in between.

    It is a hard link, a copy on file systems that have none.
    """
    temporary = checkpoint.with_name(f".{LAST}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(checkpoint, temporary)
        except OSError:
            shutil.copyfile(checkpoint, temporary)
        temporary.replace(checkpoint.with_name(LAST))
    finally:
        temporary.unlink(missing_ok=True)
