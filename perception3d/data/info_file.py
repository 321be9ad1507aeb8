"""Info files: JSON lines, a header and then one frame a line.

The header names schema, schema version, data set version, split, classes and counts.  Reading an
info file executes nothing, needs one line of it in memory at a time, and two of them can be diffed.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perception3d.errors import UserError

SCHEMA = "perception3d.nuscenes"
SCHEMA_VERSION = 1
REMAKE = "tools/create_data.py nuscenes --root-path ROOT --version {version} --out-dir {folder}"


def encode(record: Mapping[str, Any]) -> bytes:
    """Return one line of an info file, newline included.

    Raises:
        ValueError: the record holds NaN or infinity, which JSON has no word for.
    """
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def write_info_file(path: Path, header: Mapping[str, Any], lines: Iterable[bytes]) -> None:
    """Write an info file under a temporary name and rename it when it is whole.

    Args:
        path: file to write; its folder exists.
        header: fields beside schema and schema_version; `num_frames` must equal the lines.
        lines: encoded frames (see `encode`).
    """
    head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **header}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            file.write(encode(head))
            for line in lines:
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class InfoFile:
    """Random access to the frames of an info file; only line offsets are kept in memory.

    Args:
        path: the file.

    Attributes:
        path: the file.
        header: its first line.

    Raises:
        UserError: missing file, not an info file, another schema version, a truncated file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"info file {self.path} does not exist; make it with "
                + REMAKE.format(version="VERSION", folder=self.path.parent)
            )
        with open(self.path, "rb") as file:
            self.header = self._read_header(file.readline())
            starts, position = [file.tell()], file.tell()
            for line in file:
                position += len(line)
                starts.append(position)
            self._starts = np.array(starts, dtype=np.int64)
            complete = not len(self) or line.endswith(b"\n")
        expected = self.header["num_frames"]
        if len(self) != expected or not complete:
            whole = len(self) if complete else len(self) - 1
            raise UserError(
                f"info file {self.path} is damaged: its header promises {expected} frames, "
                f"{whole} whole ones are there; {self._remake()}"
            )

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names that the annotations of this file use."""
        return tuple(self.header["classes"])

    def tokens(self) -> list[str]:
        """Return the tokens of all frames, in order; reads the whole file."""
        return [self.record(index)["token"] for index in range(len(self))]

    def record(self, index: int) -> dict[str, Any]:
        """Return frame `index` as parsed JSON.

        Raises:
            IndexError: no such frame.
            UserError: the line is no JSON object.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"InfoFile: frame {index} of {len(self)}")
        start, end = self._starts[index : index + 2].tolist()
        with open(self.path, "rb") as file:
            file.seek(start)
            line = file.read(end - start)
        return self._parse(line, f"line {index + 2}")

    def _parse(self, line: bytes, where: str) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"info file {self.path} is damaged at {where} ({error}); {self._remake()}"
            ) from error
        if not isinstance(value, dict):
            raise UserError(
                f"info file {self.path}, {where}: expected a JSON object; {self._remake()}"
            )
        return value

    def _read_header(self, line: bytes) -> dict[str, Any]:
        self.header = {}
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("schema") != SCHEMA:
            raise UserError(
                f"{self.path} is not an info file (its first line has no "
                f'"schema": "{SCHEMA}"); {self._remake()}'
            )
        self.header = header
        if header.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"info file {self.path} has schema version {header.get('schema_version')}, this "
                f"perception3d reads version {SCHEMA_VERSION}; {self._remake()}"
            )
        lacking = [
            key for key in ("classes", "num_frames", "version", "split") if key not in header
        ]
        if lacking:
            raise UserError(
                f"info file {self.path}: the header lacks {', '.join(lacking)}; {self._remake()}"
            )
        return header

    def _remake(self) -> str:
        version = self.header.get("version", "VERSION")
        return "make it anew with " + REMAKE.format(version=version, folder=self.path.parent)
