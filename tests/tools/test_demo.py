"""tools/demo.py from file to boxes, and all that users get wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perception3d.engine.demo import detections_to_json
from perception3d.engine.inference import Predictor, class_names
from perception3d.errors import UserError
from perception3d.structures import Boxes3D, Detections, Sample
from perception3d.visualization.bev import BevView
from perception3d.visualization.colors import class_color

TOOLS = Path(__file__).resolve().parents[2] / "tools"

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def demo(run_tool, config, checkpoint, tmp_path):
    """Run tools/demo.py on a file: (exit code, stdout, stderr, output folder)."""

    def run(place, *options):
        out = tmp_path / "out"
        code, *texts = run_tool(
            "demo", place, config, checkpoint, "--device", "cpu", "--out-dir", out, *options
        )
        return (code, *texts, out)

    return run


def save(path, points):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, points)
    else:
        path.write_bytes(np.ascontiguousarray(points, np.float32).tobytes())
    return path


def boxes(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["boxes"]


def test_cloud_to_boxes_and_pictures(demo, tmp_path, street):
    code, out, err, folder = demo(save(tmp_path / "scan.bin", street))
    assert code == 0, err
    document = json.loads((folder / "scan.json").read_text())
    assert document["schema"] == "perception3d.detections"
    assert document["classes"] == ["car", "pedestrian"]
    (box,) = document["boxes"]  # the pedestrian scores below 0.3
    assert (box["class"], box["label"], box["score"]) == ("car", 0, 0.9)
    assert box["center"] == [10.0, 20.0, 0.0]
    assert box["size"] == [4.0, 2.0, 1.6]
    assert (box["yaw"], box["velocity"]) == (0.5, [1.0, -2.0])
    assert "points     4,000" in out
    assert "1 boxes (1 car)" in out
    bev = np.asarray(Image.open(folder / "scan_bev.png")).astype(int)
    left = np.array([10 - np.sin(0.5), 20 + np.cos(0.5)])  # middle of the left edge
    column, row = np.round(BevView().to_pixels(left)).astype(int)
    window = bev[row - 2 : row + 2, column - 2 : column + 2].reshape(-1, 3)
    assert np.abs(window - class_color("car")).max(axis=1).min() < 60
    with Image.open(folder / "scan_3d.png") as scene:
        assert scene.size == (1600, 900)
    assert not (folder / "scan_cameras.png").exists()


def test_score_threshold_and_unknown_velocity(demo, tmp_path, street):
    code, out, _, folder = demo(save(tmp_path / "scan.bin", street), "--score-thr", "0.1")
    assert code == 0
    car, pedestrian = boxes(folder, "scan")
    assert (car["score"], pedestrian["score"]) == (0.9, 0.2)  # best first
    assert pedestrian["velocity"] == [None, None]
    assert "2 boxes (1 car, 1 pedestrian)" in out


def test_too_high_a_threshold_says_so(demo, tmp_path, street):
    code, out, _, folder = demo(save(tmp_path / "scan.bin", street), "--score-thr", "0.95")
    assert code == 0
    assert boxes(folder, "scan") == []
    assert "no box scores 0.95 or more (best 0.90; --score-thr lowers it)" in out


def test_html_page(demo, tmp_path, street):
    code, out, _, folder = demo(save(tmp_path / "scan.bin", street), "--html")
    assert code == 0
    assert "scan.html" in out
    assert "0.90" in (folder / "scan.html").read_text()


def test_nothing_found_is_no_error(demo, tmp_path, street):
    code, out, _, folder = demo(save(tmp_path / "scan.bin", street[50:]))
    assert code == 0
    assert boxes(folder, "scan") == []
    assert "no box found" in out
    assert (folder / "scan_bev.png").exists()


def test_intensity_scale_and_z_offset_reach_the_model(demo, tmp_path, street):
    dim = street * [1, 1, 1, 1 / 255]
    dim[:, 2] += 1.84
    path = save(tmp_path / "scan.bin", dim)
    code, out, _, folder = demo(path)
    assert code == 0
    assert boxes(folder, "scan") == []
    assert "--intensity-scale 255" in out
    assert "--z-offset -1.8" in out
    _, out, _, folder = demo(path, "--intensity-scale", "255", "--z-offset", "-1.84")
    assert boxes(folder, "scan")[0]["center"] == pytest.approx([10, 20, 0], abs=1e-4)
    assert "hint" not in out


def test_ring_numbers_are_not_passed_as_time(demo, tmp_path, street):
    ring = np.column_stack([street, np.arange(len(street)) % 32 + 1])
    code, _, _, folder = demo(save(tmp_path / "scan.bin", ring))
    assert code == 0
    assert len(boxes(folder, "scan")) == 1  # the detector wants a time lag of 0


def test_columns_option(demo, tmp_path, street):
    wide = np.column_stack([street, np.zeros((len(street), 3))])
    path = save(tmp_path / "scan.bin", wide)
    code, _, _, folder = demo(path, "--columns", "7")
    assert code == 0
    assert boxes(folder, "scan")[0]["center"] == [10.0, 20.0, 0.0]
    code, _, err, _ = demo(path, "--columns", "9")
    assert code == 1
    assert err.count("\n") == 1
    assert "--columns is wrong" in err


def test_folder_with_a_bad_cloud_goes_on(demo, tmp_path, street):
    save(tmp_path / "clouds" / "a.bin", street)
    save(tmp_path / "clouds" / "b.bin", np.zeros(0))
    save(tmp_path / "clouds" / "c.npy", street)
    code, out, err, folder = demo(tmp_path / "clouds")
    assert code == 1
    assert len(boxes(folder, "a")) == len(boxes(folder, "c")) == 1
    assert not (folder / "b.json").exists()
    assert "b.bin is empty" in out
    assert err == "error: 1 of 3 clouds failed: b.bin; see above\n"


def test_glob_with_equal_names(demo, tmp_path, street):
    save(tmp_path / "clouds" / "x" / "a.bin", street)
    save(tmp_path / "clouds" / "y" / "a.bin", street[50:])
    code, _, _, folder = demo(f"{tmp_path}/clouds/*/*.bin")
    assert code == 0
    assert (len(boxes(folder, "a")), len(boxes(folder, "a_2"))) == (1, 0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"x" * 33, "truncated"),
        (np.full((40, 4), np.nan, np.float32).tobytes(), "is finite"),
        ((np.ones((40, 4), np.float32) * 1e4).tobytes(), "none of its 40 points lies in the model"),
    ],
    ids=["empty", "truncated", "nan", "out of range"],
)
def test_bad_cloud_is_one_line(demo, tmp_path, content, named):
    path = tmp_path / "scan.bin"
    path.write_bytes(content)
    code, _, err, folder = demo(path)
    assert code == 1
    assert err.startswith(f"error: {path}")
    assert named in err
    assert err.count("\n") == 1
    assert not folder.exists()


def test_wrong_places_are_one_line(demo, tmp_path):
    (tmp_path / "nothing").mkdir()
    for place, named in (
        (tmp_path / "no.bin", "does not exist"),
        (tmp_path / "nothing", "holds no point cloud"),
    ):
        code, _, err, _ = demo(place)
        assert code == 1
        assert named in err
        assert err.count("\n") == 1


def test_show_without_a_display_is_one_line(demo, tmp_path, street, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    code, out, _, folder = demo(save(tmp_path / "scan.bin", street), "--show")
    assert code == 0
    assert "--show: no display (DISPLAY is not set); see the pictures instead" in out
    assert (folder / "scan_bev.png").exists()


def test_checkpoint_of_another_model(run_tool, config, tmp_path, street, checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["net.extra"] = state["state_dict"].pop("net.threshold")
    other = tmp_path / "other.pth"
    torch.save(state, other)
    path = save(tmp_path / "scan.bin", street)
    code, _, err = run_tool("demo", path, config, other, "--device", "cpu")
    assert code == 1
    assert "a checkpoint of another model" in err
    assert "net.threshold" in err
    assert "net.extra" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["demo", "visualize"])
def test_help_from_any_folder_loads_nothing_heavy(tmp_path, name):
    script = TOOLS / f"{name}.py"
    code = (
        f"import runpy, sys; sys.argv = ['{name}', '--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "finally: print({'torch', 'mmengine', 'open3d', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "--out-dir" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_wrong_usage_exits_with_2(run_tool):
    code, _, err = run_tool("demo", "only-one-argument")
    assert code == 2
    assert "usage" in err


# the predictor


def test_predictor_sorts_and_checks_columns(config, checkpoint, street):
    predictor = Predictor.from_files(config, checkpoint, "cpu")
    assert predictor.classes == ("car", "pedestrian")
    assert predictor.point_columns == 5
    assert predictor.point_cloud_range == (-54, -54, -5, 54, 54, 3)
    points = torch.from_numpy(np.column_stack([street, np.zeros(len(street))])).float()
    found = predictor.detect(points)
    assert found.scores.tolist() == pytest.approx([0.9, 0.2])
    assert not found.boxes.tensor.requires_grad
    with pytest.raises(ValueError, match=r"points must be \(P, 5\), got \(P, 4\)"):
        predictor.detect(points[:, :4])


def test_predictor_of_an_empty_frame(config, checkpoint):
    predictor = Predictor.from_files(config, checkpoint, "cpu")
    sample = Sample("none", torch.zeros((0, 5)), torch.eye(4, dtype=torch.float64))
    assert len(predictor(sample)) == 0


def test_predictor_needs_a_detector_of_points():
    with pytest.raises(UserError, match="Linear has no voxelizer and encoder"):
        Predictor(torch.nn.Linear(2, 2), ("car",))


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"model": {"net": {"head": {"classes": ["a", "b"]}}}}, ("a", "b")),
        ({"model": {"heads": [{"x": 1}, {"classes": ("c",)}]}}, ("c",)),
        (
            {"model": {"classes": 3}, "test_dataloader": {"dataset": {"classes": ["d"]}}},
            ("d",),
        ),
        ({"model": {}}, None),
    ],
)
def test_class_names(sections, names):
    assert class_names(sections) == names


def test_json_has_no_nan():
    boxes = torch.full((1, 9), float("nan"))
    found = Detections(Boxes3D(boxes), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    document = detections_to_json(found, ("car",))
    assert document["boxes"][0]["center"] == [None] * 3
    json.dumps(document, allow_nan=False)
