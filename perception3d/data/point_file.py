"""Raw point files: float32, one point after the other."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception3d.errors import UserError

FLOAT_BYTES = 4


def read_points(path: Path, columns: int = 5) -> NDArray[np.float32]:
    """Read a .bin file of points.

    Args:
        path: file of float32 numbers.
        columns: numbers per point; nuScenes has 5: x, y, z in m, intensity, ring.

    Returns:
        (P, columns) float32, without points that hold NaN or infinity (a warning counts them).

    Raises:
        UserError: missing file, empty file, a size that is no multiple of a point, no finite point.
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
    finite = drop_non_finite(points, str(path))
    if not len(finite):
        raise UserError(
            f"point file {path}: none of its {len(points)} points is finite; it is damaged, or has "
            "another number of columns (LoadPoints: columns)"
        )
    return finite


def drop_non_finite(points: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return the points without NaN and infinity; a warning names the source and counts them."""
    finite = np.isfinite(points).all(axis=1)
    dropped = len(points) - int(finite.sum())
    if dropped:
        warnings.warn(
            f"{name}: dropped {dropped} of {len(points)} points with NaN or infinity", stacklevel=2
        )
        points = points[finite]
    return points
