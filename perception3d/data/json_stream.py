"""Read a JSON array of objects piece by piece: nuScenes tables reach gigabytes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perception3d.errors import UserError

BLANK = " \t\r\n"


def iterate_json_array(path: Path, chunk_chars: int = 1 << 20) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file that holds one JSON array of objects.

    At most one chunk and one object lie in memory.

    Args:
        path: the file.
        chunk_chars: characters read at a time.

    Raises:
        UserError: missing file, other content, a truncated file.
    """
    if not path.is_file():
        raise UserError(f"nuScenes table {path} does not exist; unpack the metadata archive again")
    decode = json.JSONDecoder().raw_decode
    with open(path, encoding="utf-8") as file:
        buffer, place = file.read(chunk_chars).lstrip(BLANK), 1
        if not buffer.startswith("["):
            raise UserError(f"nuScenes table {path} is no JSON array; unpack the metadata again")
        while True:
            while place < len(buffer) and buffer[place] in BLANK + ",":
                place += 1
            if place < len(buffer) and buffer[place] == "]":
                return
            try:
                value, place = decode(buffer, place)
            except json.JSONDecodeError:
                more = file.read(chunk_chars)
                if not more:
                    raise UserError(
                        f"nuScenes table {path} is truncated or damaged; unpack the metadata again"
                    ) from None
                buffer, place = buffer[place:] + more, 0
                continue
            if not isinstance(value, dict):
                raise UserError(f"nuScenes table {path} must hold objects, found {value!r:.40}")
            yield value
