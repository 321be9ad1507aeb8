"""nuScenes-schema tables -> info files: in processes, in constant memory, resumable.

Work in progress lies in a hidden folder beside the results, named after a digest of the tables and
options: first one bundle of table rows per scene, then one shard of frames per scene.  A killed run
that is started again takes up what is finished; the info files appear whole, by rename.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from perception3d.data.info_file import SCHEMA_VERSION, encode, write_info_file
from perception3d.data.nuscenes_scene import DETECTION_CLASSES, SceneBundle
from perception3d.data.nuscenes_splits import split_scenes
from perception3d.data.nuscenes_tables import TableOptions, scene_tokens, write_bundles
from perception3d.data.process import end_with_parent
from perception3d.errors import UserError

Velocities = dict[str, tuple[float, float]]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class InfoSummary:
    """What an info file holds.

    Attributes:
        path: the file.
        split: name of the split.
        num_scenes: scenes of the split that the tables hold.
        num_listed: scenes that the split lists.
        num_frames: key frames.
        num_boxes: annotated boxes by class.
    """

    path: Path
    split: str
    num_scenes: int
    num_listed: int
    num_frames: int
    num_boxes: Mapping[str, int]


def read_velocities(path: Path) -> Velocities:
    """Read annotation velocities for data sets too short for a difference over time.

    Args:
        path: .npz with `annotation_token` (K,) strings and `velocity_global` (K, 2), m/s.

    Raises:
        UserError: missing file or arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tokens, velocity = arrays["annotation_token"], arrays["velocity_global"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"velocities {path}: expected an .npz with annotation_token (K,) and "
            f"velocity_global (K, 2), got {error}"
        ) from error
    if velocity.shape != (len(tokens), 2):
        raise UserError(
            f"velocities {path}: velocity_global must be ({len(tokens)}, 2), got {velocity.shape}"
        )
    return {
        str(token): (float(vx), float(vy)) for token, (vx, vy) in zip(tokens, velocity, strict=True)
    }


def no_progress(items: Iterable[Any], total: int, text: str) -> Iterable[Any]:
    """Show nothing."""
    return items


def build_info_files(
    options: TableOptions,
    out_dir: Path,
    *,
    splits: tuple[str, ...] = (),
    velocities: Path | None = None,
    workers: int = 1,
    tag: str = "nuscenes",
    progress: Progress = no_progress,
) -> list[InfoSummary]:
    """Write `{tag}_infos_{split}.jsonl` for each split.

    Args:
        options: data root, version, sweeps, cameras.
        out_dir: folder for the info files, made if absent.
        splits: names from the devkit or `splits.json`; empty: the usual ones of the version.
        velocities: file for `read_velocities`; None: differences over time, as the devkit does.
        workers: processes.
        tag: start of the file names.
        progress: wraps the loop over scenes (items, total, text).

    Returns:
        One summary per split.

    Raises:
        UserError: wrong root, version or split, damaged tables, missing sensor files.
    """
    options.check()
    listed = split_scenes(options.folder, splits)
    name_of_scene = scene_tokens(options)
    scenes_of_split = {
        split: [token for token, name in name_of_scene.items() if name in set(names)]
        for split, names in listed.items()
    }
    empty = [split for split, scenes in scenes_of_split.items() if not scenes]
    if empty and (splits or len(empty) == len(scenes_of_split)):
        raise UserError(
            f"no scene of split {', '.join(empty)} is in {options.folder / 'scene.json'}; "
            "name another --split or --version"
        )
    for split in empty:  # an excerpt need not hold every usual split
        del scenes_of_split[split]
    wanted = {token for scenes in scenes_of_split.values() for token in scenes}
    work = out_dir / f".{tag}_infos-{_digest(options, velocities, wanted)}"
    _prepare(options, wanted, work)

    known = None if velocities is None else read_velocities(velocities)
    tasks = [
        _Task(
            bundle=work / "bundles" / token,
            shard=work / "shards" / token,
            scene_name=name,
            max_sweeps=options.max_sweeps,
            velocities=known,
        )
        for token, name in name_of_scene.items()
        if token in wanted and not (work / "shards" / token).exists()
    ]
    for _ in progress(_run(tasks, workers), len(tasks), "scenes"):
        pass
    summaries = []
    for split, scenes in scenes_of_split.items():
        path = out_dir / f"{tag}_infos_{split}.jsonl"
        shards = [work / "shards" / token for token in scenes]
        summaries.append(_join(path, split, shards, options, len(listed[split])))
    shutil.rmtree(work)
    return summaries


def _digest(options: TableOptions, velocities: Path | None, scenes: set[str]) -> str:
    files = sorted(options.folder.glob("*.json")) + ([velocities] if velocities else [])
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    facts = [SCHEMA_VERSION, options.max_sweeps, options.cameras, sorted(scenes), stamps]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _prepare(options: TableOptions, scenes: set[str], work: Path) -> None:
    """Make the bundles, unless a former run did."""
    (work / "shards").mkdir(parents=True, exist_ok=True)
    if (work / "bundles").is_dir():
        return
    partial = work / f"bundles.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write_bundles(options, scenes, partial)
    except KeyError as error:
        raise UserError(
            f"the tables under {options.folder} do not fit together: a row names {error}, which "
            "another table lacks; unpack the metadata archive again"
        ) from error
    os.replace(partial, work / "bundles")


@dataclass(frozen=True)
class _Task:
    bundle: Path
    shard: Path
    scene_name: str
    max_sweeps: int
    velocities: Velocities | None


def _make_shard(task: _Task) -> None:
    frames = SceneBundle(task.bundle, task.scene_name).frames(task.max_sweeps, task.velocities)
    boxes: Counter[str] = Counter()
    for frame in frames:
        names = frame["annotations"]["names"] if frame["annotations"] else []
        boxes.update(name for name in names if name)
    partial = task.shard.with_name(f"{task.shard.name}.{os.getpid()}.part")
    with open(partial, "wb") as file:
        file.write(encode({"num_frames": len(frames), "num_boxes": dict(boxes)}))
        file.writelines(encode(frame) for frame in frames)
    os.replace(partial, task.shard)


def _run(tasks: list[_Task], workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(_make_shard, tasks)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        try:
            yield from pool.map(_make_shard, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _join(
    path: Path, split: str, shards: list[Path], options: TableOptions, num_listed: int
) -> InfoSummary:
    num_frames, num_boxes = 0, Counter(dict.fromkeys(DETECTION_CLASSES, 0))
    for shard in shards:
        with open(shard, "rb") as file:
            counts = json.loads(file.readline())
        num_frames += counts["num_frames"]
        num_boxes.update(counts["num_boxes"])
    header = {
        "version": options.version,
        "split": split,
        "classes": list(DETECTION_CLASSES),
        "max_sweeps": options.max_sweeps,
        "num_scenes": len(shards),
        "num_frames": num_frames,
        "num_boxes": dict(num_boxes),
    }

    def lines() -> Iterator[bytes]:
        for shard in shards:
            with open(shard, "rb") as file:
                file.readline()
                yield from file

    write_info_file(path, header, lines())
    return InfoSummary(path, split, len(shards), num_listed, num_frames, dict(num_boxes))


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `nuscenes` to tools/create_data.py."""
    parser = subparsers.add_parser(
        "nuscenes", help="info files from nuScenes tables (v1.0-mini, v1.0-trainval, or your own)"
    )
    add = parser.add_argument
    add("--root-path", type=Path, required=True, help="data root: samples/, sweeps/, VERSION/")
    add("--version", default="v1.0-trainval", help="folder of the tables under the root")
    add("--out-dir", type=Path, help="folder for the info files (default: the data root)")
    add("--extra-tag", default="nuscenes", help="start of the file names")
    add("--split", action="append", default=[], help="repeatable; default: all of the version")
    add("--max-sweeps", type=int, default=10, help="scans before each key frame, at most")
    add("--no-cameras", action="store_true", help="leave the images out")
    add("--velocities", type=Path, help=".npz with annotation_token and velocity_global")
    add("--workers", type=int, default=4, help="processes")
    parser.set_defaults(command=_command)


def _command(args: argparse.Namespace, progress: Progress) -> list[str]:
    options = TableOptions(args.root_path, args.version, args.max_sweeps, not args.no_cameras)
    summaries = build_info_files(
        options,
        args.out_dir or args.root_path,
        splits=tuple(args.split),
        velocities=args.velocities,
        workers=args.workers,
        tag=args.extra_tag,
        progress=progress,
    )
    return [
        f"{summary.path}: {summary.num_frames} frames of {summary.num_scenes} scenes "
        f"({summary.num_listed} in split {summary.split}), "
        f"{sum(summary.num_boxes.values())} boxes"
        for summary in summaries
    ]
