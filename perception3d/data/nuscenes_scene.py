"""One scene of nuScenes tables -> frame records of an info file."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perception3d.data.nuscenes_tables import LIDAR, Row
from perception3d.data.poses import Floats, inverse_pose, pose_matrices, rotations_from_quaternions
from perception3d.errors import UserError

# Class order of the published detectors (open-mmlab/OpenPCDet: cbgs_dataset configs).
DETECTION_CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
# nuScenes detection task: category -> class; other categories take no part.
CLASS_OF_CATEGORY = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "movable_object.barrier": "barrier",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
}
CAMERA_ORDER = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_FRONT_LEFT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)
# A velocity over a longer gap is unknown (nutonomy/nuscenes-devkit: NuScenes.box_velocity).
MAX_GAP = 1.5
DECIMALS = 9  # of what is computed here, m or rad: a nanometre


class SceneBundle:
    """The table rows of one scene, by kind and token.

    Args:
        path: bundle written by `nuscenes_tables.write_bundles`.
        scene_name: name for the frame records.
    """

    def __init__(self, path: Path, scene_name: str) -> None:
        self.scene_name = scene_name
        self.rows: dict[str, dict[str, Row]] = defaultdict(dict)
        self.annotated = False
        with open(path, encoding="utf-8") as file:
            for line in file:
                kind, row = json.loads(line)
                if kind == "annotated":
                    self.annotated = True
                else:
                    self.rows[kind][row["token"]] = row

    def frames(
        self, max_sweeps: int, velocities: Mapping[str, tuple[float, float]] | None = None
    ) -> list[dict[str, Any]]:
        """Return the frame records of the scene, by time.

        Args:
            max_sweeps: LiDAR scans before the key frame that a record lists, at most.
            velocities: annotation token -> global (vx, vy) in m/s, instead of differences.

        Raises:
            UserError: a key frame without LiDAR scan.
        """
        sensor_data = self.rows["sample_data"]
        poses = _sensor_poses(sensor_data, self.rows["ego_pose"])
        keys: dict[str, dict[str, str]] = defaultdict(dict)
        for token, row in sensor_data.items():
            if row["is_key_frame"]:
                keys[row["sample_token"]][row["channel"]] = token
        annotations: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows["sample_annotation"].values():
            annotations[row["sample_token"]].append(row)
        velocity_of = self._velocities(velocities)

        records = []
        for sample in sorted(self.rows["sample"].values(), key=lambda row: row["timestamp"]):
            key = keys[sample["token"]].get(LIDAR)
            if key is None:
                raise UserError(
                    f"sample {sample['token']} of {self.scene_name} has no {LIDAR} key frame in "
                    "sample_data.json; unpack the metadata archive again"
                )
            row = sensor_data[key]
            ego = self.rows["ego_pose"][row["ego_pose_token"]]
            record = {
                "token": sample["token"],
                "scene": self.scene_name,
                "timestamp": row["timestamp"],
                "lidar_path": row["filename"],
                "lidar_to_global": _rounded(poses[key]),
                "ego_to_global": _rounded(pose_matrices(ego["translation"], ego["rotation"])[0]),
                "sweeps": self._sweeps(key, poses, max_sweeps),
                "cameras": self._cameras(keys[sample["token"]], poses),
                "annotations": None,
            }
            if self.annotated:
                record["annotations"] = _annotation_columns(
                    annotations[sample["token"]], inverse_pose(poses[key]), velocity_of
                )
            records.append(record)
        return records

    def _sweeps(self, key: str, poses: Mapping[str, Floats], count: int) -> list[dict[str, Any]]:
        rows = self.rows["sample_data"]
        to_key = inverse_pose(poses[key])
        sweeps: list[dict[str, Any]] = []
        token = rows[key]["prev"]
        while len(sweeps) < count and token in rows:
            row = rows[token]
            sweeps.append(
                {
                    "path": row["filename"],
                    "time_lag": round(1e-6 * (rows[key]["timestamp"] - row["timestamp"]), 6),
                    "sweep_to_key": _rounded(to_key @ poses[token]),
                }
            )
            token = row["prev"]
        return sweeps

    def _cameras(
        self, token_of_channel: Mapping[str, str], poses: Mapping[str, Floats]
    ) -> dict[str, Any]:
        lidar_to_global = poses[token_of_channel[LIDAR]]
        known = [name for name in CAMERA_ORDER if name in token_of_channel]
        others = sorted(set(token_of_channel) - {LIDAR, *CAMERA_ORDER})
        cameras = {}
        for name in known + others:
            row = self.rows["sample_data"][token_of_channel[name]]
            cameras[name] = {
                "path": row["filename"],
                "lidar_to_camera": _rounded(
                    inverse_pose(poses[token_of_channel[name]]) @ lidar_to_global
                ),
                "intrinsics": row["sensor"]["camera_intrinsic"],
                "width": row["width"],
                "height": row["height"],
            }
        return cameras

    def _velocities(
        self, known: Mapping[str, tuple[float, float]] | None
    ) -> dict[str, tuple[float, float]]:
        rows, samples = self.rows["sample_annotation"], self.rows["sample"]
        nowhere = (float("nan"), float("nan"))
        if known is not None:
            return {token: known.get(token, nowhere) for token in rows}
        result = {}
        for token, row in rows.items():
            first, last = rows.get(row["prev"], row), rows.get(row["next"], row)
            seconds = 1e-6 * samples[last["sample_token"]]["timestamp"]
            seconds -= 1e-6 * samples[first["sample_token"]]["timestamp"]
            gaps = (first is not row) + (last is not row)
            result[token] = nowhere
            if gaps and 0 < seconds <= MAX_GAP * gaps:
                start, end = first["translation"], last["translation"]
                result[token] = (
                    (end[0] - start[0]) / seconds,
                    (end[1] - start[1]) / seconds,
                )
        return result


def _sensor_poses(
    sensor_data: Mapping[str, Row], ego_poses: Mapping[str, Row]
) -> dict[str, Floats]:
    """Return sensor-to-global (4, 4) of every sensor record."""
    rows = list(sensor_data.values())
    ego = [ego_poses[row["ego_pose_token"]] for row in rows]
    ego_to_global = pose_matrices(
        [pose["translation"] for pose in ego], [pose["rotation"] for pose in ego]
    )
    sensor_to_ego = pose_matrices(
        [row["sensor"]["translation"] for row in rows], [row["sensor"]["rotation"] for row in rows]
    )
    return dict(zip(sensor_data, ego_to_global @ sensor_to_ego, strict=True))


def _annotation_columns(
    rows: list[Row], global_to_lidar: Floats, velocity_of: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """Return the annotation columns of one frame, boxes turned into the LiDAR frame.

    The heading is that of the box's x axis projected to the LiDAR's xy plane.
    """
    turn, shift = global_to_lidar[:3, :3], global_to_lidar[:3, 3]
    centers = np.array([row["translation"] for row in rows], dtype=np.float64).reshape(-1, 3)
    sizes = np.array([row["size"] for row in rows], dtype=np.float64).reshape(-1, 3)
    headings = turn @ rotations_from_quaternions([row["rotation"] for row in rows])[:, :, :1]
    velocity = np.zeros((len(rows), 3))
    velocity[:, :2] = np.array([velocity_of[row["token"]] for row in rows]).reshape(-1, 2)
    boxes = np.concatenate(
        [
            centers @ turn.T + shift,
            sizes[:, [1, 0, 2]],  # the tables say width, length, height
            np.arctan2(headings[:, 1], headings[:, 0]),
            (velocity @ turn.T)[:, :2],
        ],
        axis=1,
    )
    return {
        "tokens": [row["token"] for row in rows],
        "instances": [row["instance_token"] for row in rows],
        "categories": [row["category"] for row in rows],
        "names": [CLASS_OF_CATEGORY.get(row["category"]) for row in rows],
        "boxes": _rounded(boxes),
        "num_lidar_pts": [row["num_lidar_pts"] for row in rows],
        "num_radar_pts": [row["num_radar_pts"] for row in rows],
        "attributes": [row["attribute"] for row in rows],
        "visibility": [row["visibility"] for row in rows],
        "translation": [row["translation"] for row in rows],
        "rotation": [row["rotation"] for row in rows],
        "velocity": _without_nan(velocity[:, :2].tolist()),
    }


def _rounded(values: Floats) -> list[list[float | None]]:
    return _without_nan(np.round(values, DECIMALS).tolist())


def _without_nan(rows: list[list[float]]) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in rows]
