"""The grid and the windows of a config's network, for tools/measure_shapes.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perception3d.benchmark.shapes import Downsample, GridSettings, Partition, Stage
from perception3d.engine.build import build, resolve
from perception3d.engine.config import load_config, plain
from perception3d.errors import UserError
from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage, check_stages


def settings_of_config(path: str | Path, options: Sequence[str] = ()) -> GridSettings:
    """Read grid, stages, windows and set sizes from a config; no weights are made.

    Args:
        path: config file.
        options: KEY=VALUE overrides.

    Raises:
        UserError: no voxelizer, or a backbone whose windows are not known here.
    """
    model = plain(load_config(path, options))["model"]
    net: Mapping[str, Any] = model.get("net", {})
    if "voxelizer" not in net or "backbone" not in net:
        raise UserError(f"{path}: model.net has no voxelizer and backbone to measure")
    backbone = net["backbone"]
    if resolve(backbone["type"]) is not DSVT:
        raise UserError(
            f"{path}: the windows of {backbone['type']} are not known; name an official grid with "
            "--grid, or state --voxel-size, --range and --window"
        )
    voxelizer = net["voxelizer"]
    return GridSettings(
        Path(path).stem,
        voxelizer["voxel_size"],
        tuple(voxelizer["point_cloud_range"]),
        _dsvt_stages(backbone),
    )


def _dsvt_stages(backbone: Mapping[str, Any]) -> tuple[Stage, ...]:
    settings: list[DSVTStage] = [build(stage) for stage in backbone["stages"]]
    factor = backbone.get("hybrid_factor", (1, 1, 1))
    grids = check_stages(backbone["grid_size"], settings, factor)
    stages: list[Stage] = []
    before: tuple[Downsample, ...] = ()
    for number, (stage, grid) in enumerate(zip(settings, grids, strict=True)):
        cuts = tuple(
            Partition(_xyz(spec.size), _xyz(spec.shift), stage.set_size)
            for spec in stage.partitions(grid, factor)
        )
        stages.append(Stage(f"stage {number}", before, cuts))
        before = (Downsample(stage.pool_stride),) if stage.pool_stride is not None else ()
    return tuple(stages)


def _xyz(zyx: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = zyx
    return (x, y, z)
