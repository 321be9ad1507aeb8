"""tools/measure_shapes.py on point files, info files and configs."""

import json
from pathlib import Path

import numpy as np
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRID = ("--voxel-size", 1, 1, 8, "--range", -8, -8, -4, 8, 8, 4)


@pytest.fixture
def scans(tmp_path):
    """Two .bin files of 100 and 200 points."""
    generator = np.random.default_rng(0)
    for count in (100, 200):
        points = generator.uniform(-7, 7, (count, 5)).astype(np.float32)
        points[:, 2] /= 2
        points.tofile(tmp_path / f"{count}.bin")
    return tmp_path


def test_grid_arguments_print_and_store(run_tool, scans, tmp_path):
    path = tmp_path / "shapes.json"
    code, out, err = run_tool(
        *("measure_shapes", scans, *GRID, "--window", 4, 4, 1, "--set-size", 6),
        *("--columns", 5, "--json", path),
    )
    assert (code, err) == (0, "")
    assert "grid, 2 frame(s)" in out
    assert "voxels per window 0 median" in out
    stored = json.loads(path.read_text())
    assert stored["frames"] == 2
    figures = stored["grids"]["grid"]["voxels"]
    assert figures["points"] == {"mean": 150.0, "min": 100.0, "max": 200.0}
    assert figures["windows 0"]["max"] <= 16
    assert 0 < figures["slots filled 0"]["mean"] <= 1


def test_config_gives_every_stage(run_tool, scans):
    config = CONFIGS / "dsvt" / "dsvt_waymo_voxel.py"
    code, out, err = run_tool("measure_shapes", scans, "--config", config, "--frames", 1)
    assert (code, err) == (0, "")
    assert "dsvt_waymo_voxel, 1 frame(s)" in out
    assert all(f"stage {number}" in out for number in range(4))


def test_config_and_published_grid_agree(tmp_path):
    """The windows that a config builds are those that are listed for the published network."""
    from perception3d.benchmark.official_grids import OFFICIAL_GRIDS
    from perception3d.engine.shape_settings import settings_of_config

    for name in ("dsvt_waymo_pillar", "dsvt_waymo_voxel", "dsvt_nuscenes_pillar"):
        ours = settings_of_config(CONFIGS / "dsvt" / f"{name}.py")
        listed = OFFICIAL_GRIDS[name]
        assert (ours.voxel_size, ours.point_cloud_range) == (
            listed.voxel_size,
            listed.point_cloud_range,
        )
        assert [(s.before, s.partitions) for s in ours.stages] == [
            (s.before, s.partitions) for s in listed.stages
        ]


def test_info_file(run_tool, tiny, tmp_path):
    from perception3d.data.nuscenes_info import build_info_files
    from perception3d.data.nuscenes_tables import TableOptions

    summaries = build_info_files(TableOptions(tiny.root, tiny.version), tmp_path)
    infos = next(tmp_path.glob("*.jsonl"))
    assert summaries
    code, out, err = run_tool(
        "measure_shapes", infos, "--data-root", tiny.root, "--grid", "dsvt_nuscenes_pillar"
    )
    assert (code, err) == (0, "")
    assert "dsvt_nuscenes_pillar" in out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "nothing to measure: give --config, --grid"),
        (("--grid", "dsvt_waymo_pilar"), "did you mean 'dsvt_waymo_pillar'?"),
        (("--voxel-size", 1, 1, 1), "--voxel-size and --range go together"),
        ((*GRID, "--frames", 0), "--frames must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(run_tool, scans, arguments, wanted):
    code, _, err = run_tool("measure_shapes", scans, *arguments)
    assert code == 1
    assert wanted in err
