"""Generates a data set: scenes in processes, then the tables; whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from perception3d.data.process import end_with_parent
from perception3d.simulation.scene import SceneGenerator
from perception3d.simulation.settings import TRAIN_SPLIT, VAL_SPLIT, Settings
from perception3d.simulation.tables import SCENE_TABLES, Row, Tables, shared_tables

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class Summary:
    """What was generated.

    Attributes:
        root: data root.
        version: folder of the tables.
        num_scenes: scenes, those of earlier runs that were taken up included.
        num_resumed: scenes that an earlier, interrupted run had finished.
        rows: table name -> number of rows.
    """

    root: Path
    version: str
    num_scenes: int
    num_resumed: int
    rows: dict[str, int]


def _digest(settings: Settings) -> str:
    text = json.dumps(settings.digest_fields(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _rows_file(work: Path, scene: int) -> Path:
    return work / ".scenes" / f"{scene:05d}.json"


def _run_scene(settings: Settings, scene: int, work: Path) -> int:
    """Generate a scene; its rows appear, by rename, once all its files are written."""
    rows = SceneGenerator(settings, scene, work).run()
    path = _rows_file(work, scene)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows))
    partial.replace(path)
    return scene


def _start_worker() -> None:
    # One thread per worker: the workers share the cores among themselves.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    end_with_parent()


def _finished(settings: Settings, scenes: list[int], work: Path, workers: int) -> Iterator[int]:
    if workers <= 1:
        for scene in scenes:
            yield _run_scene(settings, scene, work)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        futures = [pool.submit(_run_scene, settings, scene, work) for scene in scenes]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            # After an error the scenes that have not begun are left to the next run.
            pool.shutdown(wait=False, cancel_futures=True)


def generate(settings: Settings, workers: int, progress: Progress) -> Summary:
    """Generate a nuScenes-schema data set.

    Work in progress lies beside `out_dir` in a hidden folder named after a digest of the settings;
    a run that was interrupted goes on with the scenes that are missing.  The bytes do not depend
    on the number of workers.

    Args:
        settings: what to generate.
        workers: processes; 1 works in this process.
        progress: wraps the iteration over scenes, to show it.

    Raises:
        UserError: a setting out of bounds, or `out_dir` is in the way.
    """
    settings.check()
    out = settings.out_dir.resolve()
    work = out.parent / f".{out.name}.{_digest(settings)}.partial"
    (work / ".scenes").mkdir(parents=True, exist_ok=True)
    missing = [scene for scene in range(settings.scenes) if not _rows_file(work, scene).is_file()]
    for _ in progress(_finished(settings, missing, work, workers), len(missing), "scenes"):
        pass
    tables = _merge(settings, work)
    _write_tables(settings, work, tables)
    shutil.rmtree(work / ".scenes")
    if out.exists():
        shutil.rmtree(out)
    work.rename(out)
    return Summary(
        out,
        settings.version,
        settings.scenes,
        settings.scenes - len(missing),
        {name: len(rows) for name, rows in tables.items()},
    )


def _merge(settings: Settings, work: Path) -> Tables:
    tables = {**shared_tables(), **{name: [] for name in SCENE_TABLES}}
    for scene in range(settings.scenes):
        rows: dict[str, list[Row]] = json.loads(_rows_file(work, scene).read_text())
        for name in SCENE_TABLES:
            tables[name] += rows[name]
    return tables


def _write_tables(settings: Settings, work: Path, tables: Tables) -> None:
    folder = work / settings.version
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    names = [row["name"] for row in tables["scene"]]
    first_val = settings.scenes - settings.val_scenes
    splits = {TRAIN_SPLIT: names[:first_val], VAL_SPLIT: names[first_val:]}
    (folder / "splits.json").write_text(json.dumps(splits, indent=1))
