"""Loaders: point clouds with sweeps, annotated boxes, camera images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from perception3d.data.frame import CameraImage, Frame, Sweep
from perception3d.data.point_file import read_points
from perception3d.errors import UserError
from perception3d.structures import Boxes3D, Cameras, Sample, Targets
from perception3d.transforms.pipeline import Loader

OWN_CAR_RADIUS = 1.0  # m in x and in y, as in nutonomy/nuscenes-devkit: LidarPointCloud
INTENSITY_COLUMN, RING_COLUMN = 3, 4


class LoadPoints(Loader):
    """Load the key frame and scans before it: points [x, y, z m, intensity, time lag s].

    Sweeps are turned into the LiDAR frame of the key frame; points of the own car (|x| < 1 m and
    |y| < 1 m in the sweep's own frame) are removed from sweeps, not from the key frame.

    Args:
        num_sweeps: scans beside the key frame; 9 in the published nuScenes recipes.
        random_sweeps: training: draw them at random, without repetition, from the scans that the
            info file lists, in random order.  Otherwise the nearest ones, nearest first.
        repeat_missing: a history that is too short repeats its last scan (the key frame itself
            where there is none at all, its own-car points removed), as
            open-mmlab/OpenPCDet: nuscenes_dataset.py does.  False: fewer points instead.
        columns: numbers per point in the files; the fifth is the ring number.
        drop_invalid: leave out points with NaN or infinity, with a warning, instead of refusing.

    Raises:
        UserError: when called: missing, empty or truncated files, another number of columns.
    """

    def __init__(
        self,
        num_sweeps: int = 9,
        random_sweeps: bool = False,
        repeat_missing: bool = True,
        columns: int = 5,
        drop_invalid: bool = False,
    ) -> None:
        if num_sweeps < 0 or columns < 4:
            raise ValueError(
                f"LoadPoints: num_sweeps must be >= 0 and columns >= 4, got {num_sweeps}, {columns}"
            )
        self.num_sweeps = num_sweeps
        self.random_sweeps = random_sweeps
        self.repeat_missing = repeat_missing
        self.columns = columns
        self.drop_invalid = drop_invalid

    def __call__(self, sample: Sample, frame: Frame, rng: np.random.Generator) -> Sample:
        """Return the sample with the points of key frame and sweeps."""
        key = self._read(frame.lidar_path)
        parts = [self._with_time(key, 0.0)]
        scans: dict[Path, NDArray[np.float32]] = {}  # a repeated scan is read once
        for sweep in self._choose(frame, rng):
            if sweep.path not in scans:
                points = key if sweep.path == frame.lidar_path else self._read(sweep.path)
                far = (np.abs(points[:, :2]) >= OWN_CAR_RADIUS).any(axis=1)
                points = self._with_time(points[far], sweep.time_lag)
                motion = sweep.sweep_to_key.astype(np.float32)
                points[:, :3] = points[:, :3] @ motion[:3, :3].T + motion[:3, 3]
                scans[sweep.path] = points
            parts.append(scans[sweep.path])
        return replace(sample, points=torch.from_numpy(np.concatenate(parts)))

    def _choose(self, frame: Frame, rng: np.random.Generator) -> list[Sweep]:
        if not self.num_sweeps:
            return []
        history = list(frame.sweeps)
        if self.random_sweeps and len(history) > self.num_sweeps:
            history = [history[i] for i in rng.choice(len(history), self.num_sweeps, replace=False)]
        history = history[: self.num_sweeps]
        if self.repeat_missing:
            last = frame.sweeps[-1] if frame.sweeps else Sweep(frame.lidar_path, 0.0, np.eye(4))
            history += [last] * (self.num_sweeps - len(history))
        if self.random_sweeps:
            history = [history[i] for i in rng.permutation(len(history))]
        return history

    def _read(self, path: Path) -> NDArray[np.float32]:
        points = read_points(path, self.columns, self.drop_invalid)
        if self.columns > RING_COLUMN:
            ring = points[:, RING_COLUMN]
            if (ring != np.floor(ring)).any() or (ring < 0).any():
                raise UserError(
                    f"point file {path}: column {RING_COLUMN + 1} of {self.columns} is no ring "
                    "number; the file has another number of columns (LoadPoints: columns)"
                )
        return points

    @staticmethod
    def _with_time(points: NDArray[np.float32], time_lag: float) -> NDArray[np.float32]:
        result = np.empty((len(points), 5), dtype=np.float32)
        result[:, : INTENSITY_COLUMN + 1] = points[:, : INTENSITY_COLUMN + 1]
        result[:, INTENSITY_COLUMN + 1] = time_lag
        return result


class LoadAnnotations(Loader):
    """Load the annotated boxes whose class the data set uses; frames without any get none."""

    def __call__(self, sample: Sample, frame: Frame, rng: np.random.Generator) -> Sample:
        """Return the sample with targets, if the frame is annotated."""
        if frame.annotations is None:
            return sample
        known = frame.annotations.labels >= 0
        targets = Targets(
            boxes=Boxes3D(torch.from_numpy(frame.annotations.boxes[known].astype(np.float32))),
            labels=torch.from_numpy(frame.annotations.labels[known]),
            num_points=torch.from_numpy(frame.annotations.num_lidar_pts[known]),
        )
        return replace(sample, targets=targets)


class LoadCameras(Loader):
    """Load images, optionally at another size.

    Args:
        size: (height, width) in pixels; None keeps that of the files.  Intrinsics are scaled by
            the same factors.
        names: cameras to load, in this order; None: all of the frame.

    Raises:
        UserError: when called: a camera that the info file lacks, an image that cannot be read,
            images of several sizes with size=None.
    """

    def __init__(
        self, size: tuple[int, int] | None = None, names: Sequence[str] | None = None
    ) -> None:
        self.size = size
        self.names = names

    def __call__(self, sample: Sample, frame: Frame, rng: np.random.Generator) -> Sample:
        """Return the sample with images, if the frame has any."""
        names = tuple(frame.cameras if self.names is None else self.names)
        absent = [name for name in names if name not in frame.cameras]
        if absent:
            raise UserError(
                f"frame {frame.token} has no camera {', '.join(absent)} (there are: "
                f"{', '.join(frame.cameras) or 'none'}); make the info file with cameras"
            )
        if not names:
            return sample
        pictures = [self._read(frame.cameras[name]) for name in names]
        sizes = {picture[0].shape for picture in pictures}
        if len(sizes) > 1:
            raise UserError(
                f"frame {frame.token}: images of several sizes {sorted(sizes)}; "
                "set size in LoadCameras"
            )
        poses = np.stack([frame.cameras[name].lidar_to_camera for name in names])
        cameras = Cameras(
            names=names,
            images=torch.from_numpy(np.stack([picture[0] for picture in pictures])),
            lidar_to_camera=torch.from_numpy(poses.astype(np.float32)),
            intrinsics=torch.from_numpy(
                np.stack([picture[1] for picture in pictures]).astype(np.float32)
            ),
        )
        return replace(sample, cameras=cameras)

    def _read(self, camera: CameraImage) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return an image (3, H, W) RGB and its intrinsics (3, 3)."""
        try:
            data = np.fromfile(camera.path, dtype=np.uint8)
        except OSError as error:
            raise UserError(
                f"image {camera.path} cannot be read ({error.strerror}); check data_root, or "
                "unpack the sensor files again"
            ) from error
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise UserError(f"image {camera.path} is damaged; unpack the sensor files again")
        height, width = self.size or image.shape[:2]
        scale = np.array([width / camera.width, height / camera.height, 1.0])
        if image.shape[:2] != (height, width):
            shrinks = height < image.shape[0]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=method)
        rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        return rgb, camera.intrinsics * scale[:, None]
