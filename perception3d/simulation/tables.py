"""Rows of the nuScenes v1.0 tables, one scene at a time."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.quaternions import quaternions_of
from perception3d.simulation.rig import CAMERAS, LIDAR, CameraMount, Mount
from perception3d.simulation.semantics import ATTRIBUTES, CATEGORIES, VISIBILITIES

Floats = NDArray[np.float64]
Row = dict[str, Any]
Tables = dict[str, list[Row]]

SCENE_TABLES = (
    "calibrated_sensor",
    "ego_pose",
    "instance",
    "lidarseg",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
)


def token(*parts: object) -> str:
    """Return the token of a row: 32 hexadecimal digits that depend on what names it."""
    text = "/".join(str(part) for part in parts)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def shared_tables() -> Tables:
    """Return the tables that are the same in every data set."""
    return {
        "attribute": [
            {"token": token("attribute", name), "name": name, "description": text}
            for name, text in ATTRIBUTES
        ],
        "category": [
            {
                "token": token("category", name),
                "name": name,
                "description": text,
                "index": index,
            }
            for index, (name, text) in enumerate(CATEGORIES)
        ],
        "sensor": [
            {
                "token": token("sensor", mount.channel),
                "channel": mount.channel,
                "modality": "camera" if isinstance(mount, CameraMount) else "lidar",
            }
            for mount in (LIDAR, *CAMERAS)
        ],
        "visibility": [
            {"token": str(number), "level": level, "description": text}
            for number, (level, text) in enumerate(VISIBILITIES, start=1)
        ],
    }


class SceneTables:
    """Collects the rows of one scene.

    Args:
        seed: seed of the data set; part of all tokens.
        scene: number of the scene.
        offset: (3,) m, added to local positions to give global ones.

    Attributes:
        name: name of the scene, e.g. "scene-0001".
        logfile: name of its log, part of its file names.
        rows: table name -> rows.
    """

    def __init__(self, seed: int, scene: int, offset: Floats) -> None:
        self._key = (seed, scene)
        self._offset = offset
        self.name = f"scene-{scene + 1:04d}"
        self.logfile = f"sim{seed}-{scene + 1:04d}"
        self.rows: Tables = {name: [] for name in SCENE_TABLES}
        self._last_data: dict[str, Row] = {}
        self._last_annotation: dict[int, Row] = {}

    def token(self, *parts: object) -> str:
        """Return the token of a row of this scene."""
        return token(*self._key, *parts)

    def add_log(self, description: str, map_file: str) -> None:
        """Add the rows of scene, log and map."""
        log, scene = self.token("log"), self.token("scene")
        self.rows["log"].append(
            {
                "token": log,
                "logfile": self.logfile,
                "vehicle": "sim",
                "date_captured": "2024-01-01",
                "location": f"synthetic-{self.name}",
            }
        )
        self.rows["map"].append(
            {
                "category": "semantic_prior",
                "token": self.token("map"),
                "filename": map_file,
                "log_tokens": [log],
            }
        )
        self.rows["scene"].append(
            {
                "token": scene,
                "log_token": log,
                "nbr_samples": 0,
                "first_sample_token": "",
                "last_sample_token": "",
                "name": self.name,
                "description": description,
            }
        )

    def add_sensor(self, mount: Mount, intrinsics: Floats | None) -> None:
        """Add the calibration of a sensor; intrinsics (3, 3) for cameras."""
        self.rows["calibrated_sensor"].append(
            {
                "token": self.token("calibrated_sensor", mount.channel),
                "sensor_token": token("sensor", mount.channel),
                "translation": mount.position.tolist(),
                "rotation": quaternions_of(mount.rotation).tolist(),
                "camera_intrinsic": [] if intrinsics is None else intrinsics.tolist(),
            }
        )

    def add_sample(self, timestamp: int) -> str:
        """Add a key frame and return its token."""
        name = self.token("sample", timestamp)
        row = {
            "token": name,
            "timestamp": timestamp,
            "prev": "",
            "next": "",
            "scene_token": self.token("scene"),
        }
        scene, rows = self.rows["scene"][0], self.rows["sample"]
        if rows:
            rows[-1]["next"], row["prev"] = name, rows[-1]["token"]
        else:
            scene["first_sample_token"] = name
        scene["last_sample_token"] = name
        scene["nbr_samples"] += 1
        rows.append(row)
        return name

    def add_data(
        self,
        mount: Mount,
        timestamp: int,
        sample: str,
        ego: tuple[Floats, Floats],
        *,
        key_frame: bool,
        image_size: tuple[int, int] = (0, 0),
    ) -> Row:
        """Add a file of a sensor with its ego pose, local position (3,) and rotation (3, 3).

        Returns:
            The row; its file name is relative to the data root.
        """
        channel = mount.channel
        name = self.token("sample_data", channel, timestamp)
        camera = isinstance(mount, CameraMount)
        folder = "samples" if key_frame else "sweeps"
        ending = "jpg" if camera else "pcd.bin"
        self.rows["ego_pose"].append(
            {
                "token": name,
                "timestamp": timestamp,
                "rotation": quaternions_of(ego[1]).tolist(),
                "translation": (ego[0] + self._offset).tolist(),
            }
        )
        row = {
            "token": name,
            "sample_token": sample,
            "ego_pose_token": name,
            "calibrated_sensor_token": self.token("calibrated_sensor", channel),
            "timestamp": timestamp,
            "fileformat": "jpg" if camera else "pcd",
            "is_key_frame": key_frame,
            "height": image_size[1],
            "width": image_size[0],
            "filename": f"{folder}/{channel}/{self.logfile}__{channel}__{timestamp}.{ending}",
            "prev": "",
            "next": "",
        }
        before = self._last_data.get(channel)
        if before is not None:
            before["next"], row["prev"] = name, before["token"]
        self._last_data[channel] = row
        self.rows["sample_data"].append(row)
        return row

    def add_lidarseg(self, lidar: str, filename: str) -> None:
        """Add the point labels of a LiDAR key frame."""
        self.rows["lidarseg"].append(
            {"token": lidar, "sample_data_token": lidar, "filename": filename}
        )

    def add_annotation(self, actor: int, category: str, sample: str, fields: Row) -> None:
        """Add a box of an actor; `fields` holds what comes from the scene, attribute by name.

        Positions in `fields` are global.
        """
        name = self.token("sample_annotation", actor, sample)
        attribute = fields.pop("attribute")
        row = {
            "token": name,
            "sample_token": sample,
            "instance_token": self.token("instance", actor),
            "attribute_tokens": [token("attribute", attribute)] if attribute else [],
            **fields,
            "prev": "",
            "next": "",
            "num_radar_pts": 0,
        }
        before = self._last_annotation.get(actor)
        if before is None:
            self.rows["instance"].append(
                {
                    "token": row["instance_token"],
                    "category_token": token("category", category),
                    "nbr_annotations": 0,
                    "first_annotation_token": name,
                    "last_annotation_token": name,
                }
            )
        else:
            before["next"], row["prev"] = name, before["token"]
        self._last_annotation[actor] = row
        self.rows["sample_annotation"].append(row)

    def drop_unseen(self) -> None:
        """Remove instances that no LiDAR point ever met, and count the rest."""
        points: dict[str, int] = {}
        boxes: dict[str, int] = {}
        last: dict[str, str] = {}
        for row in self.rows["sample_annotation"]:
            instance = row["instance_token"]
            points[instance] = points.get(instance, 0) + row["num_lidar_pts"]
            boxes[instance] = boxes.get(instance, 0) + 1
            last[instance] = row["token"]
        for name in ("sample_annotation", "instance"):
            column = "token" if name == "instance" else "instance_token"
            self.rows[name] = [row for row in self.rows[name] if points[row[column]] > 0]
        for row in self.rows["instance"]:
            row["nbr_annotations"] = boxes[row["token"]]
            row["last_annotation_token"] = last[row["token"]]
