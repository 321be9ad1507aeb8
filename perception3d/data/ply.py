"""PLY files (Stanford polygon format): the properties of their vertices.

Own reader: Open3D 0.20 returns whatever lies in memory for the vertices that a cut-off file lacks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception3d.errors import UserError

Fields = dict[str, NDArray[np.generic]]

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_ply(path: Path, data: bytes) -> Fields:
    """Decode a PLY file.

    Args:
        path: named in messages.
        data: content of the file.

    Returns:
        The vertex properties by name, each (P,); faces and other elements are left out.

    Raises:
        UserError: no valid header, vertices that do not come first or hold lists, or fewer
            vertices than the header says.
    """
    header = _Header.parse(path, data)
    body = data[header.size :]
    count, dtype = header.num_vertices, header.dtype
    names = dtype.names or ()
    if header.encoding != "ascii":
        if len(body) < count * dtype.itemsize:
            raise _truncated(path, f"{len(body)} of {count * dtype.itemsize} bytes")
        table = np.frombuffer(body, dtype, count)
        return {name: table[name].astype(table[name].dtype.newbyteorder("=")) for name in names}
    need = count * len(names)
    words = body.split(maxsplit=need)[:need]
    if len(words) < need:
        raise _truncated(path, f"{len(words)} of {need} numbers")
    try:
        values = np.array(words, dtype=np.float64).reshape(count, len(names))
    except ValueError as error:
        raise UserError(f"{path}: a row of the PLY file is no number ({error})") from error
    return {name: values[:, column].astype(dtype[name]) for column, name in enumerate(names)}


@dataclass(frozen=True)
class _Header:
    """What the header says; `size` is its length in bytes."""

    encoding: str
    num_vertices: int
    dtype: np.dtype[np.void]
    size: int

    @staticmethod
    def parse(path: Path, data: bytes) -> "_Header":
        end = data.find(b"end_header")
        line_end = data.find(b"\n", end)
        if not data.startswith(b"ply") or end < 0 or line_end < 0:
            raise UserError(f"{path}: no PLY file (no 'ply' ... 'end_header' at its start)")
        lines = data[:end].decode("ascii", "replace").splitlines()[1:]
        words = [line.split() for line in lines if line.split()]
        try:
            return _Header._from_lines(words, line_end + 1)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{path}: the PLY header is damaged or unusual ({error})") from error

    @staticmethod
    def _from_lines(lines: list[list[str]], size: int) -> "_Header":
        encoding = next(words[1] for words in [*lines, ["format", ""]] if words[0] == "format")
        if encoding not in _ORDERS:
            raise ValueError(f"format {encoding!r}")
        elements = [words for words in lines if words[0] == "element"]
        if not elements or elements[0][1] != "vertex":
            raise ValueError("the first element is not 'vertex'")
        columns = []
        start = lines.index(elements[0]) + 1
        for words in lines[start:]:
            if words[0] == "element":
                break
            if words[0] != "property":
                continue
            if words[1] == "list":
                raise ValueError(f"vertex property {words[-1]} is a list")
            columns.append((words[2].lower(), _ORDERS[encoding] + _TYPES[words[1]]))
        return _Header(encoding, int(elements[0][2]), np.dtype(columns), size)


def _truncated(path: Path, found: str) -> UserError:
    return UserError(f"{path}: the PLY file is truncated ({found}); copy it again")
