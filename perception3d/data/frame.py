"""What an info file says about one frame; arrays are numpy, paths are absolute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sweep:
    """One LiDAR scan before the key frame.

    Attributes:
        path: point file.
        time_lag: s before the key frame, positive in the past.
        sweep_to_key: (4, 4) maps the LiDAR frame of the sweep to that of the key frame.
    """

    path: Path
    time_lag: float
    sweep_to_key: Floats


@dataclass(frozen=True)
class CameraImage:
    """One image of a frame.

    Attributes:
        path: image file.
        lidar_to_camera: (4, 4); camera axes x right, y down, z forward; contains the ego motion
            between LiDAR and camera time.
        intrinsics: (3, 3), pixels of the file.
        width: pixels.
        height: pixels.
    """

    path: Path
    lidar_to_camera: Floats
    intrinsics: Floats
    width: int
    height: int


@dataclass(frozen=True)
class Annotations:
    """Annotated boxes of a frame, in the order of the tables, all classes included.

    Attributes:
        tokens: annotation tokens.
        instances: instance (track) tokens.
        categories: names in the words of the data set, e.g. "vehicle.car".
        names: detection class of each box, None for categories outside the detection task.
        labels: (K,) index into the class list of the reader, -1 outside of it.
        boxes: (K, 9) in the LiDAR frame, columns as in Boxes3D.
        num_lidar_pts: (K,) LiDAR points inside the box at the key frame.
        num_radar_pts: (K,) radar points inside the box.
        attributes: attribute name of each box, "" without one.
        visibility: visibility level of each box, "" where unknown.
        translation: (K, 3) centre in the global frame, m.
        rotation: (K, 4) quaternion w, x, y, z in the global frame.
        velocity: (K, 2) in the global frame, m/s, NaN where unknown.
    """

    tokens: tuple[str, ...]
    instances: tuple[str, ...]
    categories: tuple[str, ...]
    names: tuple[str | None, ...]
    labels: Integers
    boxes: Floats
    num_lidar_pts: Integers
    num_radar_pts: Integers
    attributes: tuple[str, ...]
    visibility: tuple[str, ...]
    translation: Floats
    rotation: Floats
    velocity: Floats

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Frame:
    """One key frame.

    Attributes:
        token: sample token.
        scene: name of the scene.
        timestamp: LiDAR time, microseconds.
        lidar_path: point file of the key frame.
        lidar_to_global: (4, 4) pose of the LiDAR.
        ego_to_global: (4, 4) pose of the car at LiDAR time.
        sweeps: scans before the key frame, nearest first; empty where there is no history.
        cameras: images by camera name.
        annotations: boxes, None where the data set has none (test split).
    """

    token: str
    scene: str
    timestamp: int
    lidar_path: Path
    lidar_to_global: Floats
    ego_to_global: Floats
    sweeps: tuple[Sweep, ...]
    cameras: Mapping[str, CameraImage]
    annotations: Annotations | None


def _matrix(rows: Sequence[Any], *shape: int) -> Floats:
    return np.array(rows, dtype=np.float64).reshape(*shape)


def _annotations(record: Mapping[str, Any], classes: Sequence[str]) -> Annotations:
    label_of_name = {name: label for label, name in enumerate(classes)}
    names = tuple(record["names"])
    return Annotations(
        tokens=tuple(record["tokens"]),
        instances=tuple(record["instances"]),
        categories=tuple(record["categories"]),
        names=names,
        labels=np.array([label_of_name.get(name or "", -1) for name in names], dtype=np.int64),
        boxes=_matrix(record["boxes"], -1, 9),
        num_lidar_pts=np.array(record["num_lidar_pts"], dtype=np.int64),
        num_radar_pts=np.array(record["num_radar_pts"], dtype=np.int64),
        attributes=tuple(record["attributes"]),
        visibility=tuple(record["visibility"]),
        translation=_matrix(record["translation"], -1, 3),
        rotation=_matrix(record["rotation"], -1, 4),
        velocity=_matrix(record["velocity"], -1, 2),
    )


def frame_from_record(record: Mapping[str, Any], root: Path, classes: Sequence[str]) -> Frame:
    """Turn one line of an info file into a Frame.

    Args:
        record: the parsed JSON object; null stands for NaN.
        root: folder that the paths of the record are relative to.
        classes: class list that `labels` index.

    Raises:
        KeyError: the record lacks a field.
    """
    annotations = record["annotations"]
    return Frame(
        token=record["token"],
        scene=record["scene"],
        timestamp=record["timestamp"],
        lidar_path=root / record["lidar_path"],
        lidar_to_global=_matrix(record["lidar_to_global"], 4, 4),
        ego_to_global=_matrix(record["ego_to_global"], 4, 4),
        sweeps=tuple(
            Sweep(root / sweep["path"], sweep["time_lag"], _matrix(sweep["sweep_to_key"], 4, 4))
            for sweep in record["sweeps"]
        ),
        cameras={
            name: CameraImage(
                path=root / camera["path"],
                lidar_to_camera=_matrix(camera["lidar_to_camera"], 4, 4),
                intrinsics=_matrix(camera["intrinsics"], 3, 3),
                width=camera["width"],
                height=camera["height"],
            )
            for name, camera in record["cameras"].items()
        },
        annotations=None if annotations is None else _annotations(annotations, classes),
    )
