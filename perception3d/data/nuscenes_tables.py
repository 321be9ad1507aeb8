"""Partition nuScenes tables by scene: one bundle file per scene, with everything its frames need.

The tables are read once, as streams.  Memory holds what links rows to scenes (sample and pose
tokens), never the rows themselves, so v1.0-trainval needs no more than a small machine has.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception3d.data.json_stream import iterate_json_array
from perception3d.errors import UserError

LIDAR = "LIDAR_TOP"
Row = dict[str, Any]


@dataclass(frozen=True)
class TableOptions:
    """What is taken from the tables.

    Attributes:
        root: data root; the paths in the tables are relative to it.
        version: folder of the tables under the root, e.g. "v1.0-mini".
        max_sweeps: sweeps per frame at most; 0 takes key frames only.
        cameras: take the camera key frames too.
    """

    root: Path
    version: str
    max_sweeps: int = 10
    cameras: bool = True

    @property
    def folder(self) -> Path:
        """Folder of the tables."""
        return self.root / self.version

    def table(self, name: str) -> Iterator[Row]:
        """Yield the rows of a table."""
        return iterate_json_array(self.folder / f"{name}.json")

    def check(self) -> None:
        """Raise UserError unless root and version exist and max_sweeps is a count."""
        if self.max_sweeps < 0:
            raise UserError(f"max_sweeps must be >= 0, got {self.max_sweeps}")
        if not self.root.is_dir():
            raise UserError(f"data root {self.root} is no folder; give --root-path")
        if not (self.folder / "sample.json").is_file():
            found = sorted(path.parent.name for path in self.root.glob("*/sample.json"))
            hint = f"found: {', '.join(found)}" if found else "no folder there holds sample.json"
            raise UserError(f"no tables of version {self.version} under {self.root}; {hint}")


class _BundleWriter:
    """Appends rows to one file per scene, keeping few of them in memory."""

    def __init__(self, folder: Path, buffered_rows: int = 50_000) -> None:
        self._folder = folder
        self._limit = buffered_rows
        self._rows: dict[str, list[str]] = defaultdict(list)
        self._count = 0

    def add(self, scene: str, kind: str, row: Row) -> None:
        self._rows[scene].append(json.dumps([kind, row]))
        self._count += 1
        if self._count >= self._limit:
            self.flush()

    def flush(self) -> None:
        for scene, rows in self._rows.items():
            with open(self._folder / scene, "a", encoding="utf-8") as file:
                file.write("\n".join(rows) + "\n")
        self._rows.clear()
        self._count = 0


class _FolderListing:
    """Answers whether files exist from one listing per folder: quick on network disks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(self._root / folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = set()
        return name in self._names[folder]


def _indexed(rows: Iterator[Row], pick: Callable[[Row], Any]) -> dict[str, Any]:
    return {row["token"]: pick(row) for row in rows}


def scene_tokens(options: TableOptions) -> dict[str, str]:
    """Return token -> name of all scenes, in table order."""
    return _indexed(options.table("scene"), lambda row: row["name"])


def write_bundles(options: TableOptions, scenes: set[str], folder: Path) -> None:
    """Write one bundle per scene: lines [kind, row] of its samples, sensor data, poses, boxes.

    Args:
        options: where and what.
        scenes: scene tokens to take.
        folder: empty folder for the bundles; each is named after its scene token.

    Raises:
        UserError: damaged tables; sensor files that are missing on disk (the first few by name).
    """
    writer = _BundleWriter(folder)
    scene_of_sample: dict[str, str] = {}
    for row in options.table("sample"):
        if row["scene_token"] in scenes:
            scene_of_sample[row["token"]] = row["scene_token"]
            writer.add(row["scene_token"], "sample", row)
    scene_of_pose = _add_sensor_data(options, scene_of_sample, writer)
    for row in options.table("ego_pose"):
        for scene in scene_of_pose.pop(row["token"], ()):
            writer.add(scene, "ego_pose", row)
    if scene_of_pose:
        raise UserError(
            f"{options.folder / 'ego_pose.json'} lacks {len(scene_of_pose)} poses that sample_data "
            f"names, e.g. {next(iter(scene_of_pose))}; unpack the metadata archive again"
        )
    _add_annotations(options, scene_of_sample, writer)
    writer.flush()


def _add_sensor_data(
    options: TableOptions, scene_of_sample: dict[str, str], writer: _BundleWriter
) -> dict[str, set[str]]:
    channels = _indexed(options.table("sensor"), lambda row: row["channel"])
    sensors = _indexed(options.table("calibrated_sensor"), lambda row: row)
    listing = _FolderListing(options.root)
    scene_of_pose: dict[str, set[str]] = defaultdict(set)
    missing: list[str] = []
    num_files = 0
    for row in options.table("sample_data"):
        scene = scene_of_sample.get(row["sample_token"])
        sensor = sensors[row["calibrated_sensor_token"]]
        channel = channels[sensor["sensor_token"]]
        if scene is None or not _is_wanted(options, channel, row["is_key_frame"]):
            continue
        num_files += 1
        if not listing.has(row["filename"]):
            missing.append(row["filename"])
        scene_of_pose[row["ego_pose_token"]].add(scene)
        calibration = {key: sensor[key] for key in ("translation", "rotation", "camera_intrinsic")}
        writer.add(scene, "sample_data", {**row, "channel": channel, "sensor": calibration})
    if missing:
        raise UserError(
            f"{len(missing)} of {num_files} sensor files that the tables name are missing under "
            f"{options.root}, e.g. {', '.join(missing[:3])}; unpack them, or leave out what you "
            "lack with --no-cameras or --max-sweeps 0"
        )
    return scene_of_pose


def _is_wanted(options: TableOptions, channel: str, is_key_frame: bool) -> bool:
    if channel == LIDAR:
        return is_key_frame or options.max_sweeps > 0
    return options.cameras and is_key_frame and channel.startswith("CAM")


def _add_annotations(
    options: TableOptions, scene_of_sample: dict[str, str], writer: _BundleWriter
) -> None:
    categories = _indexed(options.table("category"), lambda row: row["name"])
    attributes = _indexed(options.table("attribute"), lambda row: row["name"])
    levels = _indexed(options.table("visibility"), lambda row: row["level"])
    category_of = _indexed(options.table("instance"), lambda row: categories[row["category_token"]])
    annotated = False
    for row in options.table("sample_annotation"):
        annotated = True
        scene = scene_of_sample.get(row["sample_token"])
        if scene is not None:
            names = [attributes[token] for token in row.pop("attribute_tokens")]
            row["attribute"] = names[0] if names else ""
            row["visibility"] = levels.get(row.pop("visibility_token", ""), "")
            row["category"] = category_of[row["instance_token"]]
            writer.add(scene, "sample_annotation", row)
    if annotated:  # an empty table means a test split: no annotations, not zero boxes
        for scene in set(scene_of_sample.values()):
            writer.add(scene, "annotated", {})
