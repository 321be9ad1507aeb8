"""A data set in the nuScenes schema, small enough to be written inside a test."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

CATEGORIES = (
    "vehicle.car",
    "vehicle.truck",
    "vehicle.bicycle",
    "human.pedestrian.adult",
    "movable_object.barrier",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "animal",
)
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
)
ATTRIBUTE_OF = {
    "vehicle.car": "vehicle.moving",
    "vehicle.truck": "vehicle.parked",
    "vehicle.bicycle": "cycle.without_rider",
    "human.pedestrian.adult": "pedestrian.moving",
}
TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
CHANNELS = ("LIDAR_TOP", "CAM_FRONT", "CAM_BACK")
KEY_STEP_US, SWEEP_STEP_US = 500_000, 100_000
IMAGE_SIZE = (36, 64)  # height, width


@dataclass
class TinyNuScenes:
    """Settings of the data set, and what was written.

    Ego and actors move at constant speed; all poses are tilted.  In the first scene the first
    bicycle stands in a rack, and the last actor is annotated in one frame only.
    """

    root: Path
    version: str = "v1.0-mini"
    scenes: dict[str, int] = field(  # of mini_train, mini_train, mini_val
        default_factory=lambda: {"scene-0061": 3, "scene-0553": 2, "scene-0103": 2}
    )
    num_points: int = 200
    num_actors: int = 12
    seed: int = 0
    annotated: bool = True

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.tables = {name: [] for name in TABLES}

    @property
    def table_folder(self) -> Path:
        return self.root / self.version

    def table(self, name: str) -> list:
        """Return a table as it lies on disk."""
        return json.loads((self.table_folder / f"{name}.json").read_text())

    def write(self) -> "TinyNuScenes":
        """Write tables and files."""
        for channel in CHANNELS:
            (self.root / "samples" / channel).mkdir(parents=True, exist_ok=True)
        (self.root / "sweeps" / "LIDAR_TOP").mkdir(parents=True, exist_ok=True)
        (self.root / "maps").mkdir(exist_ok=True)
        cv2.imwrite(str(self.root / "maps" / "blank.png"), np.zeros((8, 8), np.uint8))
        self._fixed_tables()
        for number, (name, frames) in enumerate(self.scenes.items()):
            self._scene(number, name, frames)
        self.table_folder.mkdir(exist_ok=True)
        for name, rows in self.tables.items():
            text = json.dumps(rows, indent=0)
            (self.table_folder / f"{name}.json").write_text(text)
        return self

    def _fixed_tables(self) -> None:
        add = {name: rows.append for name, rows in self.tables.items()}
        for name in CATEGORIES:
            add["category"]({"token": f"category-{name}", "name": name, "description": ""})
        for name in ATTRIBUTES:
            add["attribute"]({"token": f"attribute-{name}", "name": name, "description": ""})
        add["visibility"]({"token": "4", "level": "v80-100", "description": ""})
        add["log"](
            {"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": ""}
        )
        add["map"](
            {"token": "map", "log_tokens": ["log"], "category": "", "filename": "maps/blank.png"}
        )
        for channel in CHANNELS:
            modality = "lidar" if channel == "LIDAR_TOP" else "camera"
            add["sensor"]({"token": f"sensor-{channel}", "channel": channel, "modality": modality})
            focal = [[50.0, 0.0, 32.0], [0.0, 50.0, 18.0], [0.0, 0.0, 1.0]]
            add["calibrated_sensor"](
                {
                    "token": f"calibrated-{channel}",
                    "sensor_token": f"sensor-{channel}",
                    "translation": self.rng.normal(0, 1, 3).tolist(),
                    "rotation": self._quaternion(self.rng.uniform(-3, 3)),
                    "camera_intrinsic": [] if modality == "lidar" else focal,
                }
            )

    def _quaternion(self, yaw: float) -> list[float]:
        tilt = self.rng.normal(0, 0.02, 2)
        x, y, z, w = Rotation.from_euler("zyx", [yaw, *tilt]).as_quat()
        return [w, x, y, z]

    def _scene(self, number: int, name: str, frames: int) -> None:
        start = 1_500_000_000_000_000 + number * 100_000_000
        samples = [f"sample-{name}-{i}" for i in range(frames)]
        self.tables["scene"].append(
            {
                "token": f"scene-{name}",
                "log_token": "log",
                "nbr_samples": frames,
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
                "name": name,
                "description": "",
            }
        )
        for i, token in enumerate(samples):
            self.tables["sample"].append(
                {
                    "token": token,
                    "timestamp": start + i * KEY_STEP_US,
                    "prev": samples[i - 1] if i else "",
                    "next": samples[i + 1] if i + 1 < frames else "",
                    "scene_token": f"scene-{name}",
                }
            )
        for channel in CHANNELS:
            self._sensor_data(name, channel, start, samples)
        if self.annotated:
            self._actors(number, name, samples)

    def _sensor_data(self, name: str, channel: str, start: int, samples: list[str]) -> None:
        is_lidar = channel == "LIDAR_TOP"
        step = SWEEP_STEP_US if is_lidar else KEY_STEP_US
        delay = 0 if is_lidar else -12_345
        times = range(0, (len(samples) - 1) * KEY_STEP_US + 1, step)
        tokens = [f"{channel}-{name}-{time}" for time in times]
        for i, (time, token) in enumerate(zip(times, tokens, strict=True)):
            is_key = time % KEY_STEP_US == 0
            folder = "samples" if is_key else "sweeps"
            path = f"{folder}/{channel}/{token}.{'pcd.bin' if is_lidar else 'jpg'}"
            self._file(self.root / path)
            seconds = 1e-6 * (time + delay)
            self.tables["ego_pose"].append(
                {
                    "token": f"pose-{token}",
                    "timestamp": start + time + delay,
                    "translation": [100 + 5 * seconds, 200 + 2 * seconds, 0.0],
                    "rotation": self._quaternion(0.4 + 0.1 * seconds),
                }
            )
            self.tables["sample_data"].append(
                {
                    "token": token,
                    "sample_token": samples[-(-time // KEY_STEP_US)],
                    "ego_pose_token": f"pose-{token}",
                    "calibrated_sensor_token": f"calibrated-{channel}",
                    "timestamp": start + time + delay,
                    "fileformat": "pcd" if is_lidar else "jpg",
                    "is_key_frame": is_key,
                    "height": 0 if is_lidar else IMAGE_SIZE[0],
                    "width": 0 if is_lidar else IMAGE_SIZE[1],
                    "filename": path,
                    "prev": tokens[i - 1] if i else "",
                    "next": tokens[i + 1] if i + 1 < len(tokens) else "",
                }
            )

    def _file(self, path: Path) -> None:
        if path.suffix == ".jpg":
            image = np.zeros((*IMAGE_SIZE, 3), np.uint8)
            image[:, :, 2] = 200  # OpenCV writes blue, green, red: a red image
            cv2.imwrite(str(path), image)
            return
        points = self.rng.normal(0, 15, (self.num_points, 5)).astype(np.float32)
        points[: self.num_points // 10, :2] = self.rng.uniform(-1.2, 1.2, (2,))  # near the car
        points[:, 2] /= 10
        points[:, 3] = self.rng.integers(0, 256, self.num_points)
        points[:, 4] = self.rng.integers(0, 32, self.num_points)
        points.tofile(path)

    def _actors(self, number: int, name: str, samples: list[str]) -> None:
        rack = None
        for actor in range(self.num_actors):
            category = CATEGORIES[actor % len(CATEGORIES)]
            instance = f"instance-{name}-{actor}"
            annotated = samples[:1] if actor == self.num_actors - 1 else samples
            tokens = [f"annotation-{name}-{actor}-{i}" for i in range(len(annotated))]
            self.tables["instance"].append(
                {
                    "token": instance,
                    "category_token": f"category-{category}",
                    "nbr_annotations": len(tokens),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )
            position = np.array([100.0, 200.0, 1.0]) + self.rng.uniform(-30, 30, 3) * [1, 1, 0.02]
            velocity = self.rng.normal(0, 3, 3) * [1, 1, 0]
            size = self.rng.uniform(0.5, 4, 3)
            if category == "static_object.bicycle_rack":
                velocity, size = np.zeros(3), np.array([3.0, 3.0, 2.0])
                rack = position
            if number == 0 and category == "vehicle.bicycle" and actor > len(CATEGORIES):
                position, velocity = rack + [0.1, 0.2, 0.0], np.zeros(3)
            attribute = ATTRIBUTE_OF.get(category)
            for i, sample in enumerate(annotated):
                place = position + velocity * i * KEY_STEP_US * 1e-6
                self.tables["sample_annotation"].append(
                    {
                        "token": tokens[i],
                        "sample_token": sample,
                        "instance_token": instance,
                        "visibility_token": "4",
                        "attribute_tokens": [f"attribute-{attribute}"] if attribute else [],
                        "translation": place.round(3).tolist(),
                        "size": size.round(3).tolist(),
                        "rotation": self._quaternion(actor + 0.1 * i),
                        "prev": tokens[i - 1] if i else "",
                        "next": tokens[i + 1] if i + 1 < len(tokens) else "",
                        "num_lidar_pts": int(self.rng.integers(0, 4)),
                        "num_radar_pts": int(self.rng.integers(0, 2)),
                    }
                )
