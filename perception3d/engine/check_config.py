"""Every name in a config, checked without building anything."""

from collections.abc import Iterator
from typing import Any

from perception3d.engine.build import check
from perception3d.engine.hooks import CheckpointHook, LogHook
from perception3d.engine.loaders import LOADER_KEYS
from perception3d.engine.optim import TrainingOptim
from perception3d.errors import unknown

_PLAIN_SECTIONS = {
    "train_cfg": ("max_epochs", "val_interval", "val_begin"),
    "auto_scale_lr": ("base_batch_size",),
    "randomness": ("seed", "deterministic"),
}
_DEFAULT_TYPES = {
    "optim_wrapper": TrainingOptim,
    "checkpoint": CheckpointHook,
    "logging": LogHook,
}
_ADDED_KEYS = {"optim_wrapper": ("optimizer", "official_frozen", "official_decay")}


def check_config(sections: dict[str, Any]) -> list[str]:
    """List all wrong names: classes that do not exist, arguments they do not take.

    Args:
        sections: from `perception3d.engine.config.plain`.

    Returns:
        One line each, with the closest name that exists.
    """
    return [problem for name, section in sections.items() for problem in _check(name, section)]


def _check(name: str, section: Any) -> Iterator[str]:
    if section is None:
        return
    if name in _PLAIN_SECTIONS:
        yield from _check_keys(name, section, _PLAIN_SECTIONS[name])
    elif name.endswith("_dataloader"):
        yield from _check_keys(name, section, LOADER_KEYS)
        yield from check(section, name)
    elif name in _DEFAULT_TYPES:
        added = {key: section[key] for key in _ADDED_KEYS.get(name, ()) if key in section}
        rest = {key: value for key, value in section.items() if key not in added}
        yield from check({"type": _DEFAULT_TYPES[name], **rest}, name)
        yield from check(added, name)
    else:
        yield from check(section, name)


def _check_keys(name: str, section: Any, known: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(section, dict):
        yield f"{name} must be a dict, got {section!r}"
        return
    for key in section:
        if key not in known:
            yield f"{name}: {unknown(key, known, 'key')}"
