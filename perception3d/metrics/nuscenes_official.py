"""The devkit's own evaluator, run on the tables."""

import contextlib
import functools
import io
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.evaluate import DetectionEval

from perception3d.data.nuscenes_scene import CLASS_OF_CATEGORY
from perception3d.data.nuscenes_splits import VERSION_OF_SPLIT, custom_splits
from perception3d.errors import UserError
from perception3d.metrics.detection import CONFIG, evaluate_boxes, summary_of
from perception3d.metrics.nuscenes_results import validate_results

if TYPE_CHECKING:
    from nuscenes import NuScenes


def load_tables(data_root: Path, version: str) -> "NuScenes":
    """Return the devkit's NuScenes object; it is kept, since loading takes up to a minute.

    Raises:
        UserError: no such tables.
    """
    table = Path(data_root) / version / "sample.json"
    if not table.is_file():
        raise UserError(
            f"no tables of version {version} under {data_root}: official figures need them; "
            "check data_root, or evaluate with ground_truth='infos'"
        )
    return _tables(str(Path(data_root).resolve()), version, table.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _tables(data_root: str, version: str, modified: int) -> "NuScenes":
    from nuscenes import NuScenes  # imports matplotlib and more, for seconds

    return NuScenes(version=version, dataroot=data_root, verbose=False)


def split_tokens(tables: "NuScenes", split: str) -> list[str]:
    """Return the sample tokens of a split of the devkit or of `splits.json`.

    Raises:
        UserError: no such split.
    """
    if split in VERSION_OF_SPLIT:
        from nuscenes.utils.splits import create_splits_scenes

        scenes = create_splits_scenes()[split]
    else:
        custom = custom_splits(Path(tables.table_root))
        if split not in custom:
            raise UserError(
                f"split {split} is neither predefined nor in {tables.table_root}/splits.json"
            )
        scenes = custom[split]
    names = set(scenes)
    scene_tokens = {scene["token"] for scene in tables.scene if scene["name"] in names}
    return [row["token"] for row in tables.sample if row["scene_token"] in scene_tokens]


def official_metrics(document: dict[str, Any], tables: "NuScenes", split: str) -> dict[str, Any]:
    """Evaluate results with nuscenes.eval.detection.DetectionEval.

    Args:
        document: result document with every sample of the split.
        tables: devkit object of `load_tables`.
        split: predefined split or one of `splits.json`.

    Returns:
        What the devkit writes as metrics_summary.json (without time and settings), NaN as None,
        and num_ground_truth {class: boxes that count}.

    Raises:
        UserError: results that do not fit format or split, a split without annotations.
    """
    tokens = split_tokens(tables, split)
    validate_results(document, tokens)
    if not tables.sample_annotation:
        raise UserError(
            f"version {tables.version} has no annotations to evaluate against; "
            "write the submission with --format-only --out DIR"
        )
    if not _has_objects(tables, set(tokens)):  # the devkit stops where there is nothing to find
        nothing = evaluate_boxes(EvalBoxes(), EvalBoxes())
        return {key: plain(value) for key, value in nothing.items()}
    if not any(document["results"].values()):  # it stops there too, but a far box does not count
        document = {
            **document,
            "results": {**document["results"], tokens[0]: [_far_box(tokens[0])]},
        }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps(document))
        with contextlib.redirect_stderr(io.StringIO()):  # the devkit's progress bar
            evaluation = DetectionEval(
                tables, config_factory(CONFIG), str(path), split, folder, verbose=False
            )
        return {key: plain(value) for key, value in summary_of(evaluation).items()}


def _has_objects(tables: "NuScenes", tokens: set[str]) -> bool:
    return any(
        row["sample_token"] in tokens and row["category_name"] in CLASS_OF_CATEGORY
        for row in tables.sample_annotation
    )


def _far_box(token: str) -> dict[str, Any]:
    return {
        "sample_token": token,
        "translation": [1e9, 1e9, 0.0],
        "size": [1.0, 1.0, 1.0],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": "car",
        "detection_score": 0.0,
        "attribute_name": "",
    }


def plain(value: Mapping[Any, Any] | float) -> dict[str, Any] | float | None:
    """Turn nested figures into JSON: dicts with string keys, Python numbers, None for NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, int):
        return value
    number = float(value)
    return None if math.isnan(number) else number
