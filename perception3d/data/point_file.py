"""Raw point files: float32, one point after the other."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception3d.errors import UserError

FLOAT_BYTES = 4


def read_points(path: Path, columns: int = 5, drop_invalid: bool = False) -> NDArray[np.float32]:
    """Read a .bin file of points.

    Args:
        path: file of float32 numbers.
        columns: numbers per point; nuScenes has 5: x, y, z in m, intensity, ring.
        drop_invalid: leave out points with NaN or infinity, with a warning that counts them.

    Returns:
        (P, columns) float32, all finite.

    Raises:
        UserError: missing file, empty file, a size that is no multiple of a point, points
            with NaN or infinity unless they are dropped, no finite point.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"point file {path} cannot be read ({error.strerror}); "
            "check data_root, or unpack the sensor files again"
        ) from error
    if not data:
        raise UserError(f"point file {path} is empty; unpack the sensor files again")
    if len(data) % (columns * FLOAT_BYTES):
        raise UserError(
            f"point file {path} has {len(data)} bytes, no multiple of {columns * FLOAT_BYTES} "
            f"({columns} float32 columns): it is truncated, or has another number of columns "
            "(LoadPoints: columns)"
        )
    points = np.frombuffer(data, dtype=np.float32).reshape(-1, columns)
    finite: NDArray[np.float32] = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        raise UserError(
            f"point file {path}: none of its {len(points)} points is finite; it is damaged, or has "
            "another number of columns (LoadPoints: columns)"
        )
    dropped = len(points) - len(finite)
    if dropped and not drop_invalid:
        raise UserError(
            f"point file {path}: {dropped} of its {len(points)} points hold NaN or infinity; mend "
            "the file, or leave them out with --cfg-options drop_invalid=True"
        )
    if dropped:
        warnings.warn(
            f"{path}: dropped {dropped} of {len(points)} points with NaN or infinity", stacklevel=2
        )
    return finite
