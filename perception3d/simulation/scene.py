"""Generates one scene: its files under the data root and its rows of the tables."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perception3d.simulation.annotate import (
    VisibilityMeter,
    boxes_at,
    count_points,
    visibility_token,
)
from perception3d.simulation.camera import CameraRig
from perception3d.simulation.casting import Caster
from perception3d.simulation.lidar import Lidar, Sweep
from perception3d.simulation.map_mask import draw_map, map_frame
from perception3d.simulation.occupancy import Occupancy
from perception3d.simulation.quaternions import yaw_quaternions
from perception3d.simulation.relief import Relief
from perception3d.simulation.rig import (
    CAMERAS,
    KEY_FRAME_PERIOD,
    LIDAR,
    SWEEP_PERIOD,
    sensor_poses,
)
from perception3d.simulation.settings import Settings
from perception3d.simulation.tables import SceneTables, Tables
from perception3d.simulation.world import build_world

Floats = NDArray[np.float64]

_JPEG_QUALITY = 90
_EPOCH = 1_700_000_000_000_000
_DESCRIPTION = "Simulated road with side streets, road works, car parks and walkers"


class SceneGenerator:
    """Generates one scene.

    Args:
        settings: the data set.
        scene: number of the scene; it and the seed fix every byte.
        root: data root to write to.
    """

    def __init__(self, settings: Settings, scene: int, root: Path) -> None:
        self._settings, self._scene, self._root = settings, scene, root
        streams = np.random.SeedSequence([settings.seed, scene]).spawn(4)
        layout, noise, probes, light = (np.random.default_rng(stream) for stream in streams)
        self._noise = noise
        self._world = build_world(layout, settings.duration)
        self._caster = Caster(self._world)
        self._lidar = Lidar(self._world, self._caster)
        self._meter = VisibilityMeter(self._world, self._caster, settings.image_size, probes)
        self._rig = self._occupancy = None
        if settings.occupancy or settings.has_images(scene):
            relief = Relief(self._world)
            if settings.has_images(scene):
                size = settings.image_size
                self._rig = CameraRig(self._world, self._caster, relief, size, light)
            if settings.occupancy:
                self._occupancy = Occupancy(self._world, relief)
        self._offset, _ = map_frame(self._world)
        self._tables = SceneTables(settings.seed, scene, self._offset)
        self._start = _EPOCH + scene * 1_000_000_000

    def run(self) -> Tables:
        """Write the files of the scene and return its rows."""
        tables, settings = self._tables, self._settings
        map_file = f"maps/{tables.token('map')}.png"
        draw_map(self._world, self._root / map_file)
        tables.add_log(_DESCRIPTION, map_file)
        tables.add_sensor(LIDAR, None)
        for camera in CAMERAS:
            tables.add_sensor(camera, camera.intrinsics(*settings.image_size))
        for frame in range(settings.frames_per_scene):
            self._frame(frame * KEY_FRAME_PERIOD)
        tables.drop_unseen()
        return tables.rows

    def _stamp(self, time: float) -> int:
        return self._start + round(time * 1e6)

    def _frame(self, time: float) -> None:
        """Generate a key frame, with the sweeps before it."""
        sample = self._tables.add_sample(self._stamp(time))
        count = self._settings.sweeps_per_keyframe
        times = time - SWEEP_PERIOD * np.arange(count - 1, -1, -1)
        sweeps = self._lidar.scan(times, self._noise)
        position, rotation = self._world.ego_poses(times)
        for number, sweep in enumerate(sweeps):
            ego = position[number], rotation[number]
            stamp = self._stamp(float(times[number]))
            self._write_sweep(stamp, sweep, sample, ego, key_frame=number == count - 1)
        if self._occupancy is not None:
            lidar = self._tables.rows["lidarseg"][-1]["sample_data_token"]
            folder = f"nuScenes-Occupancy/scene_{self._tables.token('scene')}/occupancy"
            np.save(self._file(f"{folder}/{lidar}.npy"), self._occupancy.rows(time))
        if self._rig is not None:
            self._photograph(self._rig, time, sample)
        self._annotate(time, sweeps[-1], sample)

    def _photograph(self, rig: CameraRig, time: float, sample: str) -> None:
        """Take and write the pictures of a key frame, each when the LiDAR looks along it."""
        times = [time - camera.lag() for camera in CAMERAS]
        position, rotation = self._world.ego_poses(np.array(times))
        pictures = rig.shoot(times)
        for number, camera in enumerate(CAMERAS):
            row = self._tables.add_data(
                camera,
                self._stamp(times[number]),
                sample,
                (position[number], rotation[number]),
                key_frame=True,
                image_size=self._settings.image_size,
            )
            picture = Image.fromarray(pictures[number])
            picture.save(self._file(row["filename"]), quality=_JPEG_QUALITY)

    def _write_sweep(
        self,
        stamp: int,
        sweep: Sweep,
        sample: str,
        ego: tuple[Floats, Floats],
        *,
        key_frame: bool,
    ) -> None:
        row = self._tables.add_data(LIDAR, stamp, sample, ego, key_frame=key_frame)
        path = self._file(row["filename"])
        sweep.points.tofile(path)
        if key_frame:
            name = f"lidarseg/{self._settings.version}/{row['token']}_lidarseg.bin"
            sweep.label.tofile(self._file(name))
            self._tables.add_lidarseg(row["token"], name)

    def _file(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _annotate(self, time: float, sweep: Sweep, sample: str) -> None:
        world, tables = self._world, self._tables
        boxes = boxes_at(world, time)
        ego = world.ego_poses(time)
        sensor, axes = sensor_poses(LIDAR, *ego)
        center = (boxes.center - sensor[0]) @ axes[0]
        cos, sin = np.cos(boxes.yaw), np.sin(boxes.yaw)
        upright = np.zeros((len(cos), 3, 3))
        upright[:, 0, 0], upright[:, 1, 1], upright[:, 2, 2] = cos, cos, 1
        upright[:, 0, 1], upright[:, 1, 0] = -sin, sin
        counts = count_points(center, axes[0].T @ upright, boxes.size, sweep.points[:, :3])
        shares = self._meter.shares(boxes.actor, time)
        quaternions = yaw_quaternions(boxes.yaw)
        for row, number in enumerate(boxes.actor.tolist()):
            actor = world.actors[number]
            length, width, height = actor.size
            fields = {
                "visibility_token": visibility_token(float(shares[row])),
                "attribute": actor.attribute(time),
                "translation": (boxes.center[row] + self._offset).round(3).tolist(),
                "size": [width, length, height],
                "rotation": quaternions[row].tolist(),
                "num_lidar_pts": int(counts[row]),
            }
            tables.add_annotation(number, actor.category, sample, fields)
