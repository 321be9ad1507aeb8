"""The page is run by node on a stand-in for the browser; what it draws is compared with numpy."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from perception3d.visualization import html
from perception3d.visualization.cameras import project
from perception3d.visualization.colors import BACKGROUND
from perception3d.visualization.geometry import Viewpoint
from perception3d.visualization.html import frame_html
from perception3d.visualization.layers import box_layers

CLASSES = ("car", "traffic_cone")
BOX = [4.0, 12.0, 0.0, 4.0, 2.0, 1.6, 0.5]
WIDTH, HEIGHT = 400, 300


def scene_of(page):
    (data,) = re.findall(r'<script type="application/json" id="scene">(.*?)</script>', page, re.S)
    return json.loads(data)


def stored_points(page):
    return np.frombuffer(base64.b64decode(scene_of(page)["points"]), "<i2").reshape(-1, 3) / 100


def viewpoint(pitch=0.45, distance=48.0, forward="y"):
    """The camera of the page at its start."""
    back, up = -distance * np.cos(pitch), distance * np.sin(pitch)
    eye = (0.0, back, up) if forward == "y" else (back, 0.0, up)
    return Viewpoint(eye, (0.0, 0.0, 0.0), WIDTH, HEIGHT, field_of_view=np.degrees(0.87))


def pixels_of(points, view):
    return project(np.asarray(points, float), view.world_to_camera(), view.intrinsics())[0]


@pytest.fixture
def run_viewer(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")

    def run(page, *events):
        path, out = tmp_path / "page.html", tmp_path / "out.rgba"
        path.write_text(page, encoding="utf-8")
        script = Path(__file__).with_name("run_viewer.js")
        words = [node, script, path, WIDTH, HEIGHT, out, *map(json.dumps, events)]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        image = np.fromfile(out, np.uint8).reshape(HEIGHT, WIDTH, 4)
        return image[:, :, :3], json.loads(done.stdout)

    return run


def test_page_needs_nothing_from_outside(make_sample):
    page = frame_html(make_sample([BOX]), CLASSES)
    assert not re.search(r"https?:|//[a-z]|<link|src=|import ", page)
    assert page.count("__SCENE__") == 0


def test_points_are_stored_to_the_centimetre(make_sample):
    points = torch.tensor([[1.234, -50.006, 2.0, 1], [-0.001, 327.0, -3.456, 2]])
    stored = stored_points(frame_html(make_sample(points=points), CLASSES))
    np.testing.assert_allclose(stored, points[:, :3].numpy(), atol=0.0051)


def test_far_and_broken_points_are_left_out(make_sample):
    points = torch.tensor([[400.0, 0, 0, 1], [float("nan"), 0, 0, 1], [1.0, 2.0, 3.0, 1]])
    np.testing.assert_allclose(
        stored_points(frame_html(make_sample(points=points), CLASSES)), [[1, 2, 3]]
    )


def test_very_many_points_are_thinned(make_sample, monkeypatch):
    monkeypatch.setattr(html, "MAX_POINTS", 100)
    points = torch.zeros((250, 4))
    points[:, 0] = torch.arange(250) / 10
    stored = stored_points(frame_html(make_sample(points=points), CLASSES))
    assert 50 <= len(stored) <= 100
    assert stored[-1, 0] > 24


def test_token_cannot_break_out_of_the_data(make_sample):
    token = "</script><script>alert(1)</script>"
    page = frame_html(make_sample(token=token), CLASSES)
    assert scene_of(page)["token"] == token
    assert page.count("<script") == 2


def test_point_lies_where_it_projects(make_sample, run_viewer):
    points = torch.tensor([[6.0, 10.0, 1.0, 5.0], [-6.0, 3.0, -1.0, 5.0]])
    image, _ = run_viewer(frame_html(make_sample(points=points), CLASSES))
    expected = pixels_of(points[:, :3], viewpoint())
    for column, row in np.floor(expected).astype(int):
        assert (image[row : row + 2, column : column + 2] != BACKGROUND).any(axis=2).all()
    assert (image != BACKGROUND).any(axis=2).sum() == 8


def test_nearer_point_hides_the_farther(make_sample, run_viewer):
    view = viewpoint()
    ray = np.asarray(view.eye)
    points = torch.tensor(np.stack([0.2 * ray, -0.2 * ray, 0.2 * ray]), dtype=torch.float32)
    first = frame_html(make_sample(points=torch.cat([points, torch.ones(3, 1)], 1)), CLASSES)
    image, _ = run_viewer(first)
    # both lie in the middle; the higher, nearer one is the lighter
    assert image[HEIGHT // 2, WIDTH // 2].min() > 150


def test_box_lines_and_label(make_sample, make_detections, run_viewer):
    sample, found = make_sample(), make_detections([BOX], scores=[0.87])
    _, report = run_viewer(frame_html(sample, CLASSES, found))
    lines = [line for line in report["lines"] if line[0] == "#4da3ff"]
    assert len(lines) == 13
    corners = box_layers(sample, CLASSES, found)[0].corners[0]
    drawn = np.array([line[2:] for line in lines]).reshape(-1, 2)
    for pixel in pixels_of(corners, viewpoint()):
        assert np.abs(drawn - pixel).max(axis=1).min() < 0.05
    ((text, column, row),) = report["texts"]
    assert text == "0.87"
    top = pixels_of(corners[4:].mean(axis=0, keepdims=True), viewpoint())[0]
    assert (column, row + 5) == pytest.approx(tuple(top), abs=0.05)


def test_forward_x_turns_the_view(make_sample, make_detections, run_viewer):
    sample, found = make_sample(), make_detections([BOX])
    _, report = run_viewer(frame_html(sample, CLASSES, found, forward="x"))
    corner = box_layers(sample, CLASSES, found)[0].corners[0][0]
    drawn = np.array([line[2:] for line in report["lines"]]).reshape(-1, 2)
    pixel = pixels_of(corner[None], viewpoint(forward="x"))[0]
    assert np.abs(drawn - pixel).max(axis=1).min() < 0.05


def test_lines_are_cut_before_the_camera(make_sample, make_detections, run_viewer):
    long = [0.0, -42.0, 20.0, 30.0, 2.0, 2.0, np.pi / 2]  # from behind the camera to before it
    behind = [0.0, -90.0, 20.0, 4.0, 2.0, 2.0, 0.0]
    found = make_detections([long, behind], [0, 1], scores=[0.5, 0.6])
    _, report = run_viewer(frame_html(make_sample(), CLASSES, found))
    colors = [line[0] for line in report["lines"]]
    assert "#4da3ff" in colors
    assert "#ff6bd6" not in colors
    assert np.isfinite([line[2:] for line in report["lines"]]).all()


def test_annotations_are_dashed_beside_detections(make_sample, make_detections, run_viewer):
    _, report = run_viewer(frame_html(make_sample([BOX]), CLASSES, make_detections([BOX])))
    dashed = {line[0]: line[1] for line in report["lines"]}
    assert dashed["#f0f6fc"]
    assert not dashed["#4da3ff"]


def test_panels(make_sample, make_detections, run_viewer):
    page = frame_html(make_sample([BOX], token="t-1"), CLASSES, make_detections([BOX, BOX]))
    _, report = run_viewer(page)
    assert report["title"] == report["token"] == "t-1"
    assert report["counts"] == "0 points   1 annotated   2 predicted"
    assert [row[1:] for row in report["legend"][:2]] == [
        ["car", "1 / 2"],
        ["traffic cone", "0 / 0"],
    ]
    assert report["checkboxes"] == 3


def test_mouse_and_keys_move_the_camera(make_sample, make_detections, run_viewer):
    page = frame_html(make_sample(), CLASSES, make_detections([BOX]))
    corner = box_layers(make_sample(), CLASSES, make_detections([BOX]))[0].corners[0][:1]

    def nearest(view, *events):
        _, report = run_viewer(page, *events)
        drawn = np.array([line[2:] for line in report["lines"]]).reshape(-1, 2)
        return np.abs(drawn - pixels_of(corner, view)[0]).max(axis=1).min()

    down = {"type": "pointerdown", "clientX": 0, "clientY": 0, "pointerId": 1}
    tilt = [down, {"type": "pointermove", "clientX": 0, "clientY": 20, "buttons": 1}]
    assert nearest(viewpoint(pitch=0.55), *tilt) < 0.05
    assert nearest(viewpoint(), *tilt) > 1
    wheel = {"type": "wheel", "deltaY": 1000 * np.log(2.0)}
    assert nearest(viewpoint(distance=96.0), wheel) < 0.05
    assert nearest(viewpoint(), wheel, {"type": "keydown", "key": "r"}) < 0.05
    above = viewpoint(pitch=np.pi / 2 - 1e-6, distance=110.0)
    assert nearest(above, {"type": "keydown", "key": "b"}) < 0.05


def test_unchecking_hides(make_sample, make_detections, run_viewer):
    points = torch.tensor([[6.0, 10.0, 1.0, 5.0]])
    page = frame_html(make_sample(points=points), CLASSES, make_detections([BOX]))
    image, _ = run_viewer(page, {"type": "uncheck", "number": 0})
    assert (image == BACKGROUND).all()
    _, report = run_viewer(page, {"type": "uncheck", "number": 1})
    assert "#4da3ff" not in [line[0] for line in report["lines"]]


def test_empty_frame(make_sample, run_viewer):
    image, report = run_viewer(frame_html(make_sample([]), ()))
    assert (image == BACKGROUND).all()
    assert len(report["lines"]) > 0  # range rings
