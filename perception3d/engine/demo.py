"""What tools/demo.py does: clouds from files -> boxes, as JSON and pictures."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perception3d.data.cloud_file import find_clouds, read_cloud
from perception3d.data.preflight import preflight
from perception3d.engine.inference import Predictor
from perception3d.errors import UserError
from perception3d.structures import Detections, Sample
from perception3d.visualization.pictures import PictureOptions, file_name, save_pictures
from perception3d.visualization.rendering import RenderingUnavailable
from perception3d.visualization.scene import SceneStyle, show_scene

SCHEMA, SCHEMA_VERSION = "perception3d.detections", 1

Say = Callable[[str], object]


@dataclass(frozen=True)
class DemoOptions:
    """How clouds are read, searched and shown.

    Attributes:
        score_threshold: boxes below it are left out.
        out_dir: gets NAME.json and the pictures.
        columns: numbers per point of .bin files, None: guessed.
        drop_invalid: leave out points with NaN or infinity instead of refusing the cloud.
        intensity_scale: intensities are multiplied by it.
        z_offset: m by which the cloud is lifted.
        show: open a window per cloud.
        pictures: how the pictures look.
    """

    score_threshold: float = 0.3
    out_dir: Path = Path("work_dirs/demo_output")
    columns: int | None = None
    drop_invalid: bool = False
    intensity_scale: float = 1.0
    z_offset: float = 0.0
    show: bool = False
    pictures: PictureOptions = field(default_factory=PictureOptions)


def run_demo(
    place: str,
    predictor: Callable[[], Predictor],
    options: DemoOptions,
    say: Say,
) -> list[Path]:
    """Detect objects in every cloud that a path names.

    A cloud that fails does not stop the others.

    Args:
        place: file, folder or glob.
        predictor: makes the detector; called after the clouds have been found.
        options: how to read and draw.
        say: gets lines of text for the user.

    Returns:
        The JSON files written.

    Raises:
        UserError: no cloud found, or some of them failed (their own message if it is one).
    """
    paths = find_clouds(place)
    detector = predictor()
    written, failures = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            written.append(_run_one(path, name, detector, options, say))
        except UserError as error:
            if len(paths) == 1:
                raise
            say(f"error: {error}")
            failures.append(path.name)
    if failures:
        raise UserError(
            f"{len(failures)} of {len(paths)} clouds failed: {', '.join(failures)}; see above"
        )
    return written


def _run_one(path: Path, name: str, detector: Predictor, options: DemoOptions, say: Say) -> Path:
    cloud = read_cloud(path, options.columns, options.drop_invalid)
    cloud = cloud.adjusted(options.intensity_scale, options.z_offset)
    report = preflight(cloud, detector.point_cloud_range)
    say("\n".join([str(path), *(f"  {line}" for line in report.lines())]))
    points = torch.from_numpy(cloud.for_model(detector.point_columns))
    sample = Sample(name, points, torch.eye(4, dtype=torch.float64))
    start = time.perf_counter()
    found = detector(sample)
    seconds = time.perf_counter() - start
    kept = found.take(found.scores >= options.score_threshold)
    say(f"  {_summary(kept, found, options.score_threshold, detector.classes)} in {seconds:.2f} s")
    document = {"file": str(path), **detections_to_json(kept, detector.classes)}
    options.out_dir.mkdir(parents=True, exist_ok=True)
    target = options.out_dir / f"{name}.json"
    target.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    pictures = save_pictures(sample, detector.classes, options.out_dir, kept, options.pictures)
    say(f"  wrote {', '.join(str(file) for file in [target, *pictures])}")
    if options.show:
        style = SceneStyle(options.pictures.forward, color_by=options.pictures.color_by)
        show_or_say(sample, detector.classes, kept, style, say)
    return target


def show_or_say(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None,
    style: SceneStyle,
    say: Say,
) -> None:
    """Show a frame in a window, or say in one line why there is none."""
    try:
        show_scene(sample, classes, detections, style)
    except RenderingUnavailable as reason:
        say(f"--show: {reason}; see the pictures instead")


def detections_to_json(detections: Detections, classes: Sequence[str]) -> dict[str, Any]:
    """Return detections as plain values; numbers that are not finite become None.

    Boxes: centre, size (length, width, height) in m, yaw about +z in rad, velocity in m/s, all in
    the frame of the points.
    """
    rows = detections.boxes.tensor.double().tolist()
    boxes = [
        {
            "class": classes[label],
            "label": label,
            "score": _finite(score),
            "center": [_finite(value) for value in row[0:3]],
            "size": [_finite(value) for value in row[3:6]],
            "yaw": _finite(row[6]),
            "velocity": [_finite(value) for value in row[7:9]],
        }
        for row, score, label in zip(
            rows, detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
    ]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "classes": list(classes),
        "boxes": boxes,
    }


def _finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def _summary(kept: Detections, found: Detections, threshold: float, classes: Sequence[str]) -> str:
    if len(kept):
        counts = torch.bincount(kept.labels, minlength=len(classes)).tolist()
        parts = [f"{count} {name}" for name, count in zip(classes, counts, strict=True) if count]
        return f"{len(kept)} boxes ({', '.join(parts)})"
    if len(found):
        best = float(found.scores.max())
        return f"no box scores {threshold:g} or more (best {best:.2f}; --score-thr lowers it)"
    return "no box found"


def _names(paths: Sequence[Path]) -> list[str]:
    """Name the results after the files; files of one name in several folders get a number."""
    names: list[str] = []
    for path in paths:
        stem = file_name(path.name.removesuffix(path.suffix).removesuffix(".pcd"))
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names
