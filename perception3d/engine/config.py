"""Config files: reading, single settings from the command line, plain values, fingerprint."""

import argparse
import difflib
import hashlib
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.config.utils import ConfigParsingError

from perception3d.errors import UserError, unknown

# What the programs read.  Any other name in a config file is a helper value of that file.
SECTIONS = (
    "model",
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "val_evaluator",
    "test_evaluator",
    "optim_wrapper",
    "param_scheduler",
    "train_cfg",
    "auto_scale_lr",
    "checkpoint",
    "logging",
    "custom_hooks",
    "randomness",
    "sync_bn",
    "load_from",
    "work_dir",
)


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `KEY=VALUE` settings.

    Args:
        path: a Python config file, relative to the current folder.
        options: "a.b.c=value" changes one setting, e.g. "train_cfg.max_epochs=2"; the first part
            of the key is one of `SECTIONS`, list entries are addressed by number.  "name=value"
            without a dot changes every setting of that name, wherever it stands, e.g.
            "data_root=data/nuscenes".

    Raises:
        UserError: no such file, no valid Python, a base file that is missing, or a setting that
            fits nowhere.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such config file: {path}; check the path (configs lie in configs/)")
    try:
        config = Config.fromfile(str(path))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file; give a Python config (configs/)") from error
    except (ConfigParsingError, ImportError, NameError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    for name in config._to_lazy_dict():
        close = difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.8)
        if name not in SECTIONS and close:
            raise UserError(
                f"{path}: the name {name!r} is not read by anything; did you mean {close[0]!r}?"
            )
    try:
        _apply(config, options)
    except ImportError as error:  # mmengine imports the classes that it passes by
        raise UserError(f"{path}: {' '.join(str(error).split())}; check the name") from error
    return config


def _apply(config: Config, options: Sequence[str]) -> None:
    changes = {}
    for option in options:
        key, value = _parse_option(option)
        if "." in key or key in SECTIONS:
            _check_option_key(config, key)
            changes[key] = value
        elif not _set_everywhere(config, key, value):
            names = [*SECTIONS, *_names(config)]
            raise UserError(f"--cfg-options {key}: {unknown(key, names, 'setting')}")
    try:
        config.merge_from_dict(changes)
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        raise UserError(
            f"--cfg-options {' '.join(options)}: does not fit the config "
            f"({' '.join(str(error).split())}); replace a list of numbers as a whole"
        ) from error


def _parse_option(option: str) -> tuple[str, Any]:
    key, equals, _ = option.partition("=")
    if not equals or not key:
        raise UserError(f"--cfg-options {option}: write KEY=VALUE, e.g. train_cfg.max_epochs=2")
    parsed = argparse.Namespace()
    DictAction(option_strings=["--cfg-options"], dest="options", nargs="+")(
        argparse.ArgumentParser(), parsed, [option]
    )
    return key, parsed.options[key]


def _check_option_key(config: Config, key: str) -> None:
    """Refuse keys that would change nothing, or create a new setting by a slip of the pen."""
    first = key.split(".")[0]
    if first not in SECTIONS:
        raise UserError(f"--cfg-options {key}: {unknown(first, SECTIONS, 'section')}")
    node: Any = config
    for part in key.split(".")[:-1]:
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: {part} must be a number below {len(node)}, "
                    f"the length of that list"
                )
            node = node[int(part)]
        elif isinstance(node, dict | Config) and part in node:
            node = node[part]
        elif node is config:
            node = {}  # a section that the file leaves at its default
        elif isinstance(node, dict | Config):
            raise UserError(f"--cfg-options {key}: {unknown(part, list(node), 'key')}")
        if not isinstance(node, dict | Config | list | tuple):
            raise UserError(f"--cfg-options {key}: {part} is a plain value, nothing lies below it")


def _set_everywhere(node: Any, name: str, value: Any) -> int:
    """Set every entry of that name below a node; return how many there are."""
    count = 0
    if isinstance(node, Config):
        return sum(_set_everywhere(node[key], name, value) for key in SECTIONS if key in node)
    if isinstance(node, dict):
        for key in node:
            if key == name:
                node[key] = value
                count += 1
            else:
                count += _set_everywhere(node[key], name, value)
    elif isinstance(node, list | tuple):
        count += sum(_set_everywhere(entry, name, value) for entry in node)
    return count


def _names(node: Any) -> set[str]:
    """All names of settings below a node."""
    if isinstance(node, Config):
        return {name for key in SECTIONS if key in node for name in _names(node[key])}
    if isinstance(node, dict):
        return set(node).union(*(_names(entry) for entry in node.values()))
    if isinstance(node, list | tuple):
        return {name for entry in node for name in _names(entry)}
    return set()


def plain(config: Config) -> dict[str, Any]:
    """Return the sections of a config as plain dicts, lists and values.

    Classes under `type` become dotted strings; other imported names become the objects themselves.

    Raises:
        UserError: an imported name that does not exist.
    """
    tree = dict(config._to_lazy_dict())  # the only view of mmengine that does not resolve types
    return {key: _plain(value, key) for key, value in tree.items() if key in SECTIONS}


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry, name) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry, key) for entry in value)
    if isinstance(value, LazyAttr | LazyObject):
        if key == "type":
            return f"{value.module}.{value}"
        try:
            return value.build()
        except ImportError as error:
            raise UserError(f"{key}: {' '.join(str(error).split())}") from error
    return value


def fingerprint(config: Config) -> str:
    """Return 12 hex digits that change when any section of the config changes."""
    text = repr(_sorted(plain(config)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [_sorted(entry) for entry in value]
    return value if not isinstance(value, type) else f"{value.__module__}.{value.__qualname__}"


def as_text(sections: dict[str, Any]) -> str:
    """Write sections as Python, one assignment each."""
    parts = []
    for name, value in sections.items():
        body = pprint.pformat(value, width=96, sort_dicts=False)
        lines = f"{name} = {body}".splitlines()
        indent = " " * (len(name) + 3)
        parts.append("\n".join([lines[0], *(indent + line for line in lines[1:])]))
    return "\n\n".join(parts)
