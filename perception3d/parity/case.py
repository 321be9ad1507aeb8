"""One golden case: recorded inputs, weights, results and gradients, with the tolerance of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMAT = 1

Array = np.ndarray[Any, np.dtype[Any]]


class CaseError(ValueError):
    """A case, its folder or its data file cannot be read, or contradicts itself."""


@dataclass(frozen=True)
class Rule:
    """How near a result has to come to the recorded array.

    Attributes:
        atol, rtol: |got - ref| <= atol + rtol * |ref| for every element; both 0: equal.
        exact: equal values, string arrays equal as sets.
        where: key of a bool array over the leading axes that selects what is compared; a leading
            "!" selects what is false.
        l1: if given, the sum of absolute differences may not exceed it, and nothing else counts.
    """

    atol: float = 0.0
    rtol: float = 0.0
    exact: bool = False
    where: str | None = None
    l1: float | None = None

    @staticmethod
    def parse(text: object) -> "Rule":
        """Read one value of a tolerance map: "exact" or {"atol", "rtol", "where", "l1"}."""
        if text == "exact":
            return Rule(exact=True)
        if not isinstance(text, dict) or not set(text) <= {"atol", "rtol", "where", "l1"}:
            raise CaseError(
                f'a tolerance must be "exact" or a map of atol, rtol, where, l1, got {text!r}'
            )
        return Rule(
            atol=float(text.get("atol", 0.0)),
            rtol=float(text.get("rtol", 0.0)),
            where=text.get("where"),
            l1=None if text.get("l1") is None else float(text["l1"]),
        )


@dataclass(frozen=True)
class Case:
    """One case of a `cases.json`; its data file is read on first use.

    Attributes:
        name: unique in its folder.
        kind: what is replayed, see `perception3d.parity.kinds`.
        system: reference system of the folder, e.g. "dsvt".
        mode: "eval", "train", "both", or None where module mode has no meaning.
        config: every setting of the case.
        tolerance: (glob, rule) in order, the first match wins.
        ignore: globs of arrays that need no comparison.
        path: data file, .npz or .json.
    """

    name: str
    kind: str
    system: str
    mode: str | None
    config: Mapping[str, Any]
    tolerance: tuple[tuple[str, Rule], ...]
    ignore: tuple[str, ...]
    path: Path

    @cached_property
    def document(self) -> Any:  # noqa: ANN401  # JSON: its shape belongs to the kind
        """The parsed data file of a JSON kind."""
        if self.path.suffix != ".json":
            raise CaseError(f"{self.path.name} is not a JSON file")
        return read_json(self.path)

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """All arrays by key; a JSON file gives its numbers and strings by dotted path."""
        if self.path.suffix == ".json":
            return flatten_json(self.document)
        if not self.path.is_file():
            raise CaseError(f"data file {self.path.name} is missing")
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError) as error:
            raise CaseError(f"data file {self.path.name} cannot be read: {error}") from error

    @property
    def modes(self) -> tuple[str, ...]:
        """Module modes to run: ("eval",), ("train",), both, or () where mode has no meaning."""
        return ("eval", "train") if self.mode == "both" else (self.mode,) if self.mode else ()

    def rule(self, key: str) -> Rule:
        """Return the rule of an array, the first whose glob matches."""
        for glob, rule in self.tolerance:
            if fnmatchcase(key, glob):
                return rule
        raise CaseError(f"no tolerance for {key}")

    def ignored(self, key: str) -> bool:
        """Whether the array needs no comparison."""
        return any(fnmatchcase(key, glob) for glob in self.ignore)

    def array(self, key: str) -> Array:
        """Return the array of a key, or raise CaseError."""
        if key not in self.arrays:
            raise CaseError(f"{self.path.name} has no array {key}")
        return self.arrays[key]

    def tensor(self, key: str, device: torch.device | str = "cpu") -> Tensor:
        """Return an array as a tensor; float16 and float64 become float32, widths of ints stay."""
        array = self.array(key)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        return torch.from_numpy(np.array(array)).to(device)

    def parameters(self, prefix: str = "") -> dict[str, Tensor]:
        """Return `param.<prefix><name>` as {name: tensor on the CPU}."""
        start = f"param.{prefix}"
        return {
            key.removeprefix(start): self.tensor(key)
            for key in self.arrays
            if key.startswith(start)
        }

    def beside(self, name: str) -> Path:
        """Return the path of another file of the same folder, named in the config."""
        return self.path.parent / name


def read_json(path: Path) -> Any:  # noqa: ANN401  # JSON
    """Parse a JSON file; CaseError says what is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CaseError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise CaseError(f"{path} is not readable as JSON: {error}") from error


def flatten_json(value: object, key: str = "") -> dict[str, Array]:
    """Turn nested maps into {"a.b": array}; null is NaN, lists of numbers become one array."""
    if isinstance(value, dict):
        flat: dict[str, Array] = {}
        for name, part in value.items():
            flat.update(flatten_json(part, f"{key}.{name}" if key else str(name)))
        return flat
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return flatten_json({str(number): part for number, part in enumerate(value)}, key)
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, str) for part in parts):
        return {key: np.array([str(part) for part in parts])}
    numbers = np.array([np.nan if part is None else part for part in parts])
    return {key: numbers if isinstance(value, list) else numbers[0]}


def case_folders(folder: Path) -> list[Path]:
    """Return the folder if it holds a cases.json, else its subfolders that do.

    Raises:
        CaseError: the path is no folder, or there is no cases.json.
    """
    if not folder.is_dir():
        raise CaseError(f"{folder} is not a folder; name a folder of golden vectors")
    if (folder / "cases.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/cases.json"))
    if not found:
        raise CaseError(f"{folder} holds no cases.json, and no subfolder of it does")
    return found


def read_cases(folder: Path) -> Iterator[Case]:
    """Yield the cases of a folder in their order.

    Raises:
        CaseError: cases.json is missing, unreadable or of another format.
    """
    path = folder / "cases.json"
    table = read_json(path)
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise CaseError(f"{path}: format must be {FORMAT}, got {found}")
    for entry in table["cases"]:
        try:
            yield Case(
                name=entry["name"],
                kind=entry["kind"],
                system=table["system"],
                mode=entry.get("mode"),
                config=entry.get("config") or {},
                tolerance=tuple(
                    (glob, Rule.parse(text)) for glob, text in entry["tolerance"].items()
                ),
                ignore=tuple(entry.get("ignore") or ()),
                path=folder / entry["file"],
            )
        except KeyError as error:
            raise CaseError(
                f"{path}: case {entry.get('name', '?')} lacks the field {error}"
            ) from error
