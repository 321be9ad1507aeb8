"""What tools/measure_shapes.py does: points of files or info files to figures of a grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from perception3d.benchmark.machine import describe_machine
from perception3d.benchmark.record import Record, write_report
from perception3d.benchmark.shapes import Figures, GridSettings, measure_shapes, summarise
from perception3d.data.cloud_file import find_clouds, read_cloud
from perception3d.data.frame import frame_from_record
from perception3d.data.info_file import InfoFile
from perception3d.data.point_file import read_points
from perception3d.terminal import print_table


@dataclass(frozen=True)
class PointSource:
    """Where frames come from.

    Attributes:
        place: point cloud file, folder or glob of them, or an info file (.jsonl).
        data_root: what the paths of an info file are relative to; None: the file's folder.
        columns: numbers per point of .bin files; None: guessed, and 5 for an info file.
        frames: at most so many, evenly spread; None: all.
    """

    place: str
    data_root: str | None = None
    columns: int | None = None
    frames: int | None = None

    def paths(self) -> list[Path]:
        """Return the point files."""
        if Path(self.place).suffix == ".jsonl":
            infos = InfoFile(self.place)
            root = Path(self.data_root or Path(self.place).parent)
            found = [
                frame_from_record(infos.record(index), root, infos.classes).lidar_path
                for index in range(len(infos))
            ]
        else:
            found = find_clouds(self.place)
        if self.frames is not None and self.frames < len(found):
            step = len(found) / self.frames
            found = [found[int(place * step)] for place in range(self.frames)]
        return found

    def points(self) -> Iterator[Tensor]:
        """Yield (P, >=3) float32 per frame: single scans, points that are not finite dropped."""
        for path in self.paths():
            if Path(self.place).suffix == ".jsonl":
                yield torch.from_numpy(read_points(path, self.columns or 5, drop_invalid=True))
            else:
                cloud = read_cloud(path, self.columns, drop_invalid=True)
                yield torch.from_numpy(cloud.for_model(3))


def run(source: PointSource, grids: Sequence[GridSettings], json: Path | None) -> None:
    """Measure every grid on every frame, print a table each, store all."""
    measured: dict[str, list[dict[str, Figures]]] = {grid.name: [] for grid in grids}
    count = 0
    for points in source.points():
        count += 1
        for grid in grids:
            measured[grid.name].append(measure_shapes(points, grid))
    summaries = {name: summarise(frames) for name, frames in measured.items()}
    for name, summary in summaries.items():
        print_summary(f"{name}, {count} frame(s)", summary)
    if json is not None:
        report: Record = {
            "machine": describe_machine(),
            "data": source.place,
            "frames": count,
            "grids": summaries,
        }
        write_report(report, json)


def print_summary(title: str, summary: Mapping[str, Mapping[str, Figures]]) -> None:
    """Print mean (and range, where frames differ) per figure, one column per stage."""
    names = dict.fromkeys(name for figures in summary.values() for name in figures)
    rows = [[name, *(_cell(stage.get(name)) for stage in summary.values())] for name in names]
    print_table(title, ["", *summary], rows)


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    mean, least, most = (_number(value[kind]) for kind in ("mean", "min", "max"))
    return mean if least == most else f"{mean} ({least}..{most})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"
