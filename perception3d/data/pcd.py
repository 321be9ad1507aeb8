"""PCD files of the Point Cloud Library: text header, then ascii, binary or compressed rows.

Own reader: Open3D 0.20 returns whatever lies in memory for the rows that a cut-off ascii file
lacks.  Format: pointclouds.org, "The PCD file format", version 0.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception3d.errors import UserError

Fields = dict[str, NDArray[np.generic]]

_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}


def read_pcd(path: Path, data: bytes) -> Fields:
    """Decode a PCD file.

    Args:
        path: named in messages.
        data: content of the file.

    Returns:
        The single-valued fields by name, each (P,); fields of several values are left out.

    Raises:
        UserError: no valid header, an unknown encoding, or fewer rows than the header says.
    """
    header = _Header.parse(path, data)
    body = data[header.size :]
    if header.encoding == "ascii":
        table = _read_ascii(path, header, body)
    elif header.encoding == "binary":
        need = header.num_points * header.dtype.itemsize
        if len(body) < need:
            raise _truncated(path, f"{len(body)} of {need} bytes")
        table = np.frombuffer(body, header.dtype, header.num_points)
    else:
        table = _read_compressed(path, header, body)
    return {name: table[name] for name in header.names if table[name].ndim == 1}


@dataclass(frozen=True)
class _Header:
    """What the header says; `size` is its length in bytes."""

    names: list[str]
    dtype: np.dtype[np.void]
    num_points: int
    encoding: str
    size: int

    @staticmethod
    def parse(path: Path, data: bytes) -> "_Header":
        entries: dict[str, list[str]] = {}
        position = 0
        while "DATA" not in entries:
            end = data.find(b"\n", position)
            if end < 0 or position > 10_000:
                raise UserError(f"{path}: no PCD file (its header has no DATA line)")
            words = data[position:end].decode("ascii", "replace").split("#")[0].split()
            if words:
                entries[words[0].upper()] = words[1:]
            position = end + 1
        try:
            return _Header._from_entries(entries, position)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{path}: the PCD header is damaged ({error})") from error

    @staticmethod
    def _from_entries(entries: Mapping[str, list[str]], size: int) -> "_Header":
        names = [name.lower() for name in entries["FIELDS"]]
        counts = [int(count) for count in entries.get("COUNT", ["1"] * len(names))]
        columns = []
        for number, (name, width, kind, count) in enumerate(
            zip(names, entries["SIZE"], entries["TYPE"], counts, strict=True)
        ):
            if int(width) not in _SIZES[kind] or count < 1:
                raise ValueError(f"field {name}: TYPE {kind}, SIZE {width}, COUNT {count}")
            # "_" is padding and may come several times
            key = f"_{number}" if name == "_" or name in names[:number] else name
            columns.append((key, f"<{_KINDS[kind]}{width}", (count,) if count > 1 else ()))
        if "POINTS" in entries:
            num_points = int(entries["POINTS"][0])
        else:
            num_points = int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0])
        encoding = entries["DATA"][0].lower()
        if num_points < 0 or encoding not in ("ascii", "binary", "binary_compressed"):
            raise ValueError(f"POINTS {num_points}, DATA {encoding}")
        keys = [key for key, _, _ in columns if not key.startswith("_")]
        return _Header(keys, np.dtype(columns), num_points, encoding, size)


def _read_ascii(path: Path, header: _Header, body: bytes) -> NDArray[np.void]:
    width = sum(_length(header.dtype, name) for name in _columns(header.dtype))
    words = body.split()
    need = width * header.num_points
    if len(words) < need:
        raise _truncated(path, f"{len(words)} of {need} numbers")
    try:
        values = np.array(words[:need], dtype=np.float64).reshape(header.num_points, width)
    except ValueError as error:
        raise UserError(f"{path}: a row of the PCD file is no number ({error})") from error
    table = np.zeros(header.num_points, dtype=header.dtype)
    column = 0
    for name in _columns(header.dtype):
        length = _length(header.dtype, name)
        table[name] = values[:, column : column + length].reshape(table[name].shape)
        column += length
    return table


def _read_compressed(path: Path, header: _Header, body: bytes) -> NDArray[np.void]:
    if len(body) < 8:
        raise _truncated(path, f"{len(body)} bytes")
    packed, unpacked = np.frombuffer(body, "<u4", 2)
    need = header.num_points * header.dtype.itemsize
    if unpacked != need:
        raise UserError(f"{path}: the PCD file unpacks to {unpacked} bytes, its header says {need}")
    if len(body) - 8 < packed:
        raise _truncated(path, f"{len(body) - 8} of {packed} packed bytes")
    try:
        content = decompress_lzf(body[8 : 8 + int(packed)], need)
    except ValueError as error:
        raise UserError(f"{path}: the packed part of the PCD file is damaged ({error})") from error
    table = np.zeros(header.num_points, dtype=header.dtype)
    position = 0
    for name in _columns(header.dtype):  # packed field by field, not point by point
        column = table[name]
        kind = header.dtype[name].base
        values = np.frombuffer(content, kind, column.size, position)
        table[name] = values.reshape(column.shape)
        position += values.nbytes
    return table


def decompress_lzf(packed: bytes, size: int) -> bytes:
    """Undo LZF (Marc Lehmann's liblzf): runs of literals and copies of earlier output.

    Args:
        packed: compressed bytes.
        size: length of the result.

    Raises:
        ValueError: the bytes do not unpack to exactly `size`.
    """
    result = bytearray()
    position, end = 0, len(packed)
    try:
        while position < end:
            control = packed[position]
            position += 1
            if control < 32:  # control + 1 literals
                result += packed[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[position]
                position += 1
            distance = ((control & 31) << 8) + packed[position] + 1
            position += 1
            start = len(result) - distance
            if start < 0:
                raise ValueError("a copy from before the start")
            length += 2
            if distance >= length:
                result += result[start : start + length]
            else:  # the copy overlaps what it writes
                piece = bytes(result[start:])
                result += (piece * (length // distance + 1))[:length]
    except IndexError as error:
        raise ValueError("it ends within a run") from error
    if len(result) != size:
        raise ValueError(f"{len(result)} bytes instead of {size}")
    return bytes(result)


def _columns(dtype: np.dtype[np.void]) -> tuple[str, ...]:
    return dtype.names or ()


def _length(dtype: np.dtype[np.void], name: str) -> int:
    return int(np.prod(dtype[name].shape, dtype=np.int64))


def _truncated(path: Path, found: str) -> UserError:
    return UserError(f"{path}: the PCD file is truncated ({found}); copy it again")
