"""One point cloud from a file of any common format, for sensors that no data set describes."""

import glob
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.data.pcd import read_pcd
from perception3d.data.ply import read_ply
from perception3d.errors import UserError

EXTENSIONS = (".bin", ".npy", ".npz", ".pcd", ".ply", ".las", ".laz")
BIN_COLUMNS = (4, 5, 6)  # tried for .bin files: KITTI; nuScenes; Waymo exports

_INTENSITY_NAMES = (
    "intensity",
    "scalar_intensity",
    "reflectivity",
    "reflectance",
    "remission",
    "i",
)


@dataclass(frozen=True)
class PointCloud:
    """Points of one file.

    Attributes:
        path: where they came from.
        points: (P, C) float32; x, y, z first.
        columns: C names: "x", "y", "z", "intensity", then "time" (a lag in s), "ring" or "?".
        num_dropped: points left out because a coordinate or value was NaN or infinite.
    """

    path: Path
    points: NDArray[np.float32]
    columns: tuple[str, ...]
    num_dropped: int

    def __len__(self) -> int:
        return len(self.points)

    def adjusted(self, intensity_scale: float = 1.0, z_offset: float = 0.0) -> "PointCloud":
        """Return the cloud with intensity multiplied and shifted by `z_offset` m upwards."""
        points = self.points.copy()
        points[:, 2] += z_offset
        if points.shape[1] > 3:
            points[:, 3] *= intensity_scale
        return replace(self, points=points)

    def for_model(self, num_columns: int) -> NDArray[np.float32]:
        """Return (P, num_columns) as a model reads them: x, y, z, intensity, time lag, ...

        Columns that the file lacks are 0; a ring number or unknown column is not passed on.

        Raises:
            ValueError: fewer than 3 columns asked for.
        """
        if num_columns < 3:
            raise ValueError(f"PointCloud.for_model: num_columns must be >= 3, got {num_columns}")
        result = np.zeros((len(self.points), num_columns), dtype=np.float32)
        for place, name in enumerate(("x", "y", "z", "intensity", "time")[:num_columns]):
            if name in self.columns:
                result[:, place] = self.points[:, self.columns.index(name)]
        return result


def find_clouds(place: str | Path) -> list[Path]:
    """Return the cloud files that a path names: a file, a folder's files, or a glob's matches.

    Raises:
        UserError: nothing there, or no file of a known extension.
    """
    path = Path(place)
    if path.is_file():
        return [path]
    known = ", ".join(EXTENSIONS)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and _extension(p) in EXTENSIONS)
        if not found:
            raise UserError(f"folder {path} holds no point cloud; known extensions: {known}")
        return found
    matches = [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    found = [p for p in matches if p.is_file() and _extension(p) in EXTENSIONS]
    if not found:
        what = "matches no point cloud" if matches else "does not exist"
        raise UserError(f"{place} {what}; give a file, a folder or a glob of {known}")
    return found


def read_cloud(
    path: str | Path, columns: int | None = None, drop_invalid: bool = False
) -> PointCloud:
    """Read one cloud.

    Formats: .bin (rows of float32), .npy, .npz (entry "points", or the only one), .pcd, .ply,
    .las, .laz (needs laspy).  Formats with named fields give x, y, z and intensity, 0 where the
    file has none.

    Args:
        path: the file.
        columns: numbers per point of a .bin file; None: guessed from size and content.
        drop_invalid: leave out points with NaN or infinity (a scanner's missing returns).

    Raises:
        UserError: missing, empty, truncated or damaged file, unknown extension, a size that fits
            no number of columns, points with NaN or infinity unless they are dropped, no finite
            point.
    """
    path = Path(path)
    extension = _extension(path)
    if extension not in EXTENSIONS:
        raise UserError(
            f"{path}: unknown extension {extension or '(none)'}; known: {', '.join(EXTENSIONS)}"
        )
    if columns is not None and columns < 3:
        raise UserError(f"--columns {columns}: a point has at least 3 columns, x, y, z")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"no such point cloud: {path}; check the path") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    if not data:
        raise UserError(f"{path} is empty (0 bytes); record or copy it again")
    if extension == ".bin":
        table = _read_bin(path, data, columns)
    else:
        table = _READERS[extension](path, data)
    return _checked(path, table, drop_invalid)


def _extension(path: Path) -> str:
    return path.suffix.lower()


def _checked(path: Path, table: NDArray[np.float32], drop_invalid: bool) -> PointCloud:
    if len(table) == 0:
        raise UserError(f"{path} holds no points; record or copy it again")
    finite = np.isfinite(table).all(axis=1)
    points = np.ascontiguousarray(table[finite])
    if len(points) == 0:
        raise UserError(f"{path}: none of its {len(table)} points is finite; check its columns")
    dropped = len(table) - len(points)
    if dropped and not drop_invalid:
        raise UserError(
            f"{path}: {dropped} of its {len(table)} points hold NaN or infinity; mend the file, or "
            "leave them out with --drop-invalid"
        )
    return PointCloud(path, points, _name_columns(points), dropped)


def _name_columns(points: NDArray[np.float32]) -> tuple[str, ...]:
    """Name the columns; the fifth is a time lag or a ring number by its values."""
    names = ["x", "y", "z", "intensity"][: points.shape[1]]
    for column in range(4, points.shape[1]):
        values = points[:, column]
        whole = bool((values == np.floor(values)).all())
        if column == 4 and whole and values.min() >= 0 and values.max() > 1:
            names.append("ring")
        elif column == 4 and np.abs(values).max() <= 2.0:
            names.append("time")
        else:
            names.append("?")
    return tuple(names)


def _read_bin(path: Path, data: bytes, columns: int | None) -> NDArray[np.float32]:
    if len(data) % 4:
        raise UserError(
            f"{path}: {len(data)} bytes are no float32 numbers; it is truncated or no point file"
        )
    values = np.frombuffer(data, dtype="<f4")
    if columns is not None:
        if len(values) % columns:
            raise UserError(
                f"{path}: {len(values)} numbers do not divide into {columns} columns; "
                "it is truncated, or --columns is wrong"
            )
        return values.reshape(-1, columns)
    fitting = [count for count in BIN_COLUMNS if len(values) % count == 0]
    if not fitting:
        raise UserError(
            f"{path}: {len(values)} numbers divide into none of {BIN_COLUMNS} columns; it is "
            "truncated, or has another number of columns (--columns N)"
        )
    return values.reshape(-1, max(fitting, key=lambda count: _distinctness(values, count)))


def _distinctness(values: NDArray[np.float32], columns: int) -> float:
    """Score a guess: in the true columns the numbers differ most from column to column.

    With a wrong count each column mixes x, y, z and intensity and looks like all the others.

    Returns:
        Mean distance between the rank distribution of a column and that of all numbers, 0 to 0.25.
    """
    sample = np.nan_to_num(values[: columns * 4000], nan=0.0)
    order = np.argsort(sample, kind="stable")
    # equal numbers share a rank, or the order of the file would pass for a difference
    _, inverse, counts = np.unique(sample, return_inverse=True, return_counts=True)
    top = np.cumsum(counts)
    ranks = ((top - (counts - 1) / 2 - 0.5) / len(order))[inverse.reshape(-1)]
    pooled = np.sort(ranks).reshape(-1, columns).mean(axis=1)
    by_column = np.sort(ranks.reshape(-1, columns), axis=0)
    return float(np.abs(by_column - pooled[:, None]).mean())


def _read_npy(path: Path, data: bytes) -> NDArray[np.float32]:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"{path}: no .npy file, or truncated, or it holds Python objects ({error})"
        ) from error
    return _as_table(path, array)


def _read_npz(path: Path, data: bytes) -> NDArray[np.float32]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            names = archive.files
            if "points" not in names and len(names) != 1:
                raise UserError(
                    f"{path}: needs an entry 'points', or one entry only; it has "
                    f"{', '.join(names) or 'none'}"
                )
            array = archive["points" if "points" in names else names[0]]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: no .npz file, or truncated, or it holds Python objects ({error})"
        ) from error
    return _as_table(path, array)


def _as_table(path: Path, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.names:
        return _from_fields(path, {name.lower(): array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: must hold numbers (P, columns) with at least 3 columns x, y, z, "
            f"got {array.shape} {array.dtype}"
        )
    return array.astype(np.float32)


def _read_las(path: Path, data: bytes) -> NDArray[np.float32]:
    try:
        import laspy
    except ImportError as error:
        raise UserError(f"{path}: .las and .laz need laspy: pip install 'laspy[lazrs]'") from error
    try:
        cloud = laspy.read(io.BytesIO(data))
    except laspy.errors.LaspyException as error:
        if "backend" in str(error).lower():
            raise UserError(f"{path}: .laz needs a decoder: pip install 'laspy[lazrs]'") from error
        raise UserError(f"{path}: no LAS file, or truncated ({error})") from error
    except Exception as error:  # the LAZ decoders raise types of their own
        raise UserError(f"{path}: no LAS file, or truncated ({error})") from error
    declared = int(cloud.header.point_count)
    if len(cloud.x) != declared:
        raise UserError(
            f"{path}: the LAS file is truncated ({len(cloud.x)} of {declared} points); "
            "copy it again"
        )
    xyz = np.stack([np.asarray(cloud.x), np.asarray(cloud.y), np.asarray(cloud.z)], axis=1)
    intensity = np.asarray(cloud.intensity, dtype=np.float64)
    table: NDArray[np.float32] = np.concatenate([xyz, intensity[:, None]], axis=1, dtype=np.float32)
    return table


def _read_pcd(path: Path, data: bytes) -> NDArray[np.float32]:
    return _from_fields(path, read_pcd(path, data))


def _read_ply(path: Path, data: bytes) -> NDArray[np.float32]:
    return _from_fields(path, read_ply(path, data))


def _from_fields(path: Path, fields: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    missing = [name for name in "xyz" if name not in fields]
    if missing:
        raise UserError(
            f"{path}: has no field {', '.join(missing)}; its fields: {', '.join(fields) or 'none'}"
        )
    names = ["x", "y", "z", *[name for name in _INTENSITY_NAMES if name in fields][:1]]
    columns = [np.asarray(fields[name]).astype(np.float32) for name in names]
    if len(columns) == 3:
        columns.append(np.zeros_like(columns[0]))
    return np.stack(columns, axis=1)


_READERS: dict[str, Callable[[Path, bytes], NDArray[np.float32]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
}
