"""Bad data, configs and checkpoints of the real DSVT: one line that names thing and fix, exit 1.

What concerns no data set or network (options, the toy model) is in tests/tools/test_bad_input.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_dsvt import CONFIG, VERSION, settings

from perception3d.engine.build import build
from perception3d.engine.config import load_config, plain

VAL_INFOS = "nuscenes_infos_synthetic_val.jsonl"


def key_clouds(root: Path) -> list[Path]:
    return sorted((root / "samples" / "LIDAR_TOP").glob("*.bin"))


def spoil(root: Path, kind: str) -> None:
    """Damage all point files, sweeps included."""
    for path in root.glob("s*/LIDAR_TOP/*.bin"):
        points = np.fromfile(path, np.float32).reshape(-1, 5)
        if kind == "empty":
            points = points[:0]
        elif kind == "four columns":
            points = points[: len(points) // 5 * 5 - 1, :4]
        elif kind == "NaN":
            points[:] = np.nan
        elif kind == "far":
            points[:, :3] += 1000.0
        content = points.tobytes()
        path.write_bytes(content[:-7] if kind == "cut" else content)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("empty", "is empty; unpack the sensor files again"),
        ("cut", "no multiple of 20 (5 float32 columns): it is truncated"),
        ("four columns", "another number of columns (LoadPoints: columns)"),
        ("NaN", "points is finite; it is damaged"),
        ("far", "has no point in the model's range x -14.4..14.4"),
    ],
)
@pytest.mark.filterwarnings("default:.*dropped.*")
@pytest.mark.parametrize("name", ["train", "test"])
def test_points(damaged_root, checkpoint, tool, name, kind, named):
    spoil(damaged_root, kind)
    weights = () if name == "train" else (checkpoint, "--out", "result")
    ended = tool(name, CONFIG, *weights, "--work-dir", "run", *settings(damaged_root))
    assert named in ended.error
    assert kind == "far" or str(damaged_root) in ended.error
    assert not list(Path().glob("run/*.pth"))
    assert not list(Path().glob("result/*"))


@pytest.mark.parametrize("kind", ["empty", "cut", "four columns", "NaN"])
@pytest.mark.filterwarnings("default:.*dropped.*")
def test_points_of_pictures(damaged_root, tool, kind):
    spoil(damaged_root, kind)
    options = ("--mode", "gt", "--split", "test", "--bev", "--out-dir", "pictures")
    ended = tool("visualize", CONFIG, *options, *settings(damaged_root))
    assert str(damaged_root) in ended.error
    assert not list(Path().glob("pictures/*"))


def test_one_frame_without_a_point_in_range(damaged_root, checkpoint, tool):
    """Not the first frame: what a look at the data before the run does not see."""
    lines = (damaged_root / VAL_INFOS).read_text().splitlines()
    first, frame = json.loads(lines[1]), json.loads(lines[2])
    sweeps = {sweep["path"] for sweep in frame["sweeps"]} - {first["lidar_path"]}
    for path in (frame["lidar_path"], *sweeps):
        points = np.fromfile(damaged_root / path, np.float32).reshape(-1, 5)
        points[:, :3] += 1000.0
        points.tofile(damaged_root / path)
    run = ("test", CONFIG, checkpoint, "--work-dir", "run")
    error = tool(*run, *settings(damaged_root)).error
    assert f"frame {frame['token']} has no point in the model's range x -14.4..14.4" in error
    assert "model.allow_empty_frames=True" in error
    draw = ("visualize", CONFIG, "--mode", "pred", "--checkpoint", checkpoint, "--bev")
    assert f"frame {frame['token']} has no point" in tool(*draw, *settings(damaged_root)).error
    ended = tool(*run, *settings(damaged_root, "model.allow_empty_frames=True"))
    assert ended.code == 0, ended.err


@pytest.mark.filterwarnings("default:.*dropped.*")
def test_some_non_finite_points_are_refused_or_dropped_and_counted(damaged_root, checkpoint, tool):
    for path in key_clouds(damaged_root):
        points = np.fromfile(path, np.float32).reshape(-1, 5)
        points[:3, 0] = np.nan, np.inf, -np.inf
        points.tofile(path)
    run = ("test", CONFIG, checkpoint, "--work-dir", "run")
    assert "points hold NaN or infinity" in tool(*run, *settings(damaged_root)).error
    ended = tool(*run, *settings(damaged_root), "drop_invalid=True")
    assert ended.code == 0, ended.err
    assert f"warning: {key_clouds(damaged_root)[-1]}: dropped 3 of " in ended.err
    assert "UserWarning" not in ended.err


def test_info_file_of_another_version(damaged_root, checkpoint, tool):
    for path in damaged_root.glob("*.jsonl"):
        header, *frames = path.read_text().splitlines(keepends=True)
        header = json.dumps({**json.loads(header), "schema_version": 99}) + "\n"
        path.write_text("".join([header, *frames]))
    for name, weights in (("train", ()), ("test", (checkpoint,)), ("visualize", ())):
        ended = tool(name, CONFIG, *weights, *settings(damaged_root))
        assert "schema version 99, this perception3d reads version 1" in ended.error
        assert "tools/create_data.py nuscenes" in ended.error
    assert not Path("work_dirs").exists()


def test_data_root_that_is_not_there(checkpoint, tool):
    for name, weights in (("train", ()), ("test", (checkpoint,)), ("visualize", ())):
        ended = tool(name, CONFIG, *weights, *settings(Path("nowhere")))
        assert "data_root nowhere is no folder" in ended.error
        assert "--cfg-options data_root=DIR" in ended.error
    ended = tool("create_data", "nuscenes", "--root-path", "nowhere")
    assert "nowhere" in ended.error


@pytest.mark.parametrize(("table", "kept"), [("sample_data", -300), ("scene", 0), ("scene", None)])
def test_damaged_tables(damaged_root, tool, table, kept):
    path = damaged_root / VERSION / f"{table}.json"
    text = path.read_text()
    path.unlink()
    if kept is not None:
        path.write_text(text[:kept])
    shutil.rmtree("out", ignore_errors=True)
    where = ("--root-path", damaged_root, "--version", VERSION, "--out-dir", "out")
    ended = tool("create_data", "nuscenes", *where, "--workers", 1)
    assert f"{table}.json" in ended.error
    assert not list(Path().glob("out/*.jsonl"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("model.net.head.classes=('car','truk')", "did you mean 'truk'"),
        ("train_dataloader.dataset.classes=('car','truck')", "write the same list"),
        ("train_dataloader.dataset.classes=('car','truk')", "did you mean 'truck'"),
        ("train_cfg.max_epochs=abc", "train_cfg.max_epochs must be a whole number >= 1"),
        ("model.net.backbone.chanels=3", "(DSVT): no argument 'chanels'; did you mean 'channels'"),
        ("train_dataloder.batch_size=1", "did you mean 'train_dataloader'"),
    ],
)
def test_configs(root, tool, change, named):
    ended = tool("train", CONFIG, *settings(root, change))
    assert named in ended.error
    assert not Path("work_dirs").exists()


def test_config_files(tool):
    Path("top.py").write_text("modle = dict()\n")
    Path("import.py").write_text(
        "from perception3d.models.detector import Detectr\nmodel = dict(type=Detectr)\n"
    )
    Path("binary.py").write_bytes(b"\x00\xff\xfe")
    assert "did you mean 'model'" in tool("print_config", "top.py").error
    assert "Detectr" in tool("print_config", "import.py", "--cfg-options", "data_root=x").error
    assert "binary.py" in tool("print_config", "binary.py").error


def checkpoints() -> dict[str, object]:
    return {
        "other.pth": {"state_dict": {"weight": torch.zeros(3)}},
        "tensor.pth": torch.zeros(3),
        "text.pth": b"no checkpoint",
        "empty.pth": b"",
    }


@pytest.mark.parametrize("name", list(checkpoints()))
@pytest.mark.filterwarnings("default:.*pickle protocol.*")
def test_checkpoints(root, tool, name):
    content = checkpoints()[name]
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    else:
        torch.save(content, name)
    np.save("cloud.npy", np.fromfile(key_clouds(root)[0], np.float32).reshape(-1, 5))
    calls = (
        ("test", CONFIG, name, "--out", "result"),
        ("demo", "cloud.npy", CONFIG, name, "--out-dir", "result"),
        ("visualize", CONFIG, "--mode", "pred", "--checkpoint", name, "--out-dir", "result"),
        ("benchmark", CONFIG, "--checkpoint", name, "--workload", "tiny", "--json", "result/a"),
        ("train", CONFIG, "--load-from", name),
        ("train", CONFIG, "--resume", name),
    )
    for tool_name, *words in calls:
        assert name in tool(tool_name, *words, *settings(root)).error
    ended = tool("convert_checkpoint", name, "result/o.pth", "--system", "dsvt", "--config", CONFIG)
    assert name in ended.error
    assert not [path for path in Path("result").glob("*") if path.is_file()]
    assert not Path("work_dirs").exists()


def test_conversion_that_makes_no_sense(checkpoint, tool):
    changes = ("o.pth", "--config", CONFIG, "--system")
    assert "did you mean 'dsvt'" in tool("convert_checkpoint", checkpoint, *changes, "dsv").error
    ours = Path("ours.pth")
    model = build(plain(load_config(CONFIG))["model"])
    torch.save({"state_dict": model.state_dict()}, ours)
    assert "our names already" in tool("convert_checkpoint", ours, *changes, "dsvt").error
    assert not Path("o.pth").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_that_is_not_there(root, checkpoint, tool, tmp_path):
    Path("cloud.bin").write_bytes(key_clouds(root)[0].read_bytes())
    calls = (
        ("train", CONFIG, "--device", "cuda", *settings(root)),
        ("test", CONFIG, checkpoint, "--device", "cuda", *settings(root)),
        ("demo", "cloud.bin", CONFIG, checkpoint, "--device", "cuda"),
        ("model_info", CONFIG, "--device", "cuda"),
        ("benchmark", CONFIG, "--device", "cuda"),
    )
    for name, *words in calls:
        assert "use --device cpu" in tool(name, *words).error
    (tmp_path / "cases.json").write_text('{"format": 1, "system": "dsvt", "cases": []}')
    parity = tool("check_parity", tmp_path, "--device", "cuda")
    assert parity.code == 2
    assert "use --device cpu" in parity.error


def test_result_folders_that_cannot_be_made(root, checkpoint, tool):
    Path("file").write_text("in the way")
    Path("cloud.bin").write_bytes(key_clouds(root)[0].read_bytes())
    where = ("--root-path", root, "--version", VERSION, "--workers", 1)
    calls = (
        ("train", CONFIG, "--work-dir", "file/run", *settings(root)),
        ("test", CONFIG, checkpoint, "--out", "file/out", *settings(root)),
        ("demo", "cloud.bin", CONFIG, checkpoint, "--out-dir", "file/out", *settings(root)),
        ("visualize", CONFIG, "--bev", "--out-dir", "file/out", *settings(root)),
        ("create_data", "nuscenes", *where, "--out-dir", "file/out"),
        ("create_data", "synthetic", "--scenes", 1, "--val-scenes", 0, "--out-dir", "file/out"),
    )
    for name, *words in calls:
        error = tool(name, *words).error
        assert "file" in error
        assert "choose another path" in error, error
