"""The 3D picture, and what happens where there is none."""

import sys
import time
import warnings

import numpy as np
import pytest
import torch

from perception3d.structures import Boxes3D
from perception3d.visualization import rendering, scene
from perception3d.visualization.bev import BevView, draw_bev
from perception3d.visualization.colors import BACKGROUND, class_color
from perception3d.visualization.geometry import SceneGeometry, Viewpoint
from perception3d.visualization.layers import BOX_EDGES, FRONT_FACE, box_layers
from perception3d.visualization.rendering import (
    ROUTES,
    Renderer,
    RenderingUnavailable,
    Route,
    show_window,
)

CLASSES = ("car", "pedestrian")
BOX = [4.0, 12.0, 0.0, 4.0, 2.0, 1.6, 0.5]


class CannedRenderer(Renderer):
    """Returns a plain picture, remembers what it was asked."""

    def __init__(self):
        super().__init__([])
        self.asked = []

    def render(self, geometry, view):
        self.asked.append((geometry, view))
        return np.full((view.height, view.width, 3), geometry.background, dtype=np.uint8)


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("open3d")
    renderer = Renderer()
    try:
        renderer.render(*tiny_scene())
    except RenderingUnavailable as reason:
        pytest.skip(f"no 3D rendering on this machine: {reason}")
    yield renderer
    renderer.close()


def tiny_scene(color=(200, 100, 50)):
    geometry = SceneGeometry(
        points=np.array([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]),
        point_colors=np.array([color, color], dtype=np.uint8),
        lines=np.array([[[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]]),
        line_colors=np.array([color], dtype=np.uint8),
        point_size=9.0,
        line_width=9.0,
        background=(10, 20, 30),
    )
    return geometry, Viewpoint((0.0, -10.0, 0.0), (0.0, 0.0, 0.0), 200, 100)


def broken_route(monkeypatch, code):
    """Put a child process in the place of the worker."""
    real = rendering.subprocess.Popen

    def start(arguments, **options):
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(rendering.subprocess, "Popen", start)


def test_viewpoint_looks_at_its_target():
    view = Viewpoint((1.0, -20.0, 10.0), (1.0, 5.0, 0.0), 800, 600)
    pixels, depth = scene.project(
        np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0], [1.0, 5.0, 2.0], [1.0, -40.0, 10.0]]),
        view.world_to_camera(),
        view.intrinsics(),
    )
    np.testing.assert_allclose(pixels[0], [400, 300])
    assert pixels[1, 0] > 400
    assert pixels[1, 1] == pytest.approx(300)
    assert pixels[2, 1] < 300
    assert depth[3] < 0


@pytest.mark.parametrize(("forward", "right"), [("y", (5.0, 0.0)), ("x", (0.0, -5.0))])
def test_view_from_behind_has_right_on_the_right(forward, right):
    view = Viewpoint.behind(forward)
    place = np.array([[*right, 0.0]])
    pixels, depth = scene.project(place, view.world_to_camera(), view.intrinsics())
    assert depth[0] > 0
    assert pixels[0, 0] > view.width / 2 + 50


def test_box_edges_join_neighbouring_corners():
    corners = Boxes3D(torch.tensor([[0, 0, 0, 2.0, 4.0, 8.0, 0, 0, 0]])).corners()[0].numpy()
    lengths = sorted(np.abs(corners[a] - corners[b]).sum() for a, b in BOX_EDGES)
    assert lengths == [2.0] * 4 + [4.0] * 4 + [8.0] * 4
    assert (corners[list(FRONT_FACE), 0] == 1.0).all()


def test_geometry_holds_points_edges_and_heading(make_sample):
    points = torch.tensor([[1.0, 2, 0, 5], [float("inf"), 0, 0, 5], [3, 4, 1, 5]])
    sample = make_sample([BOX], [1], points=points)
    layers = box_layers(sample, CLASSES, None)
    geometry = scene.scene_geometry(sample, layers)
    np.testing.assert_array_equal(geometry.points, [[1, 2, 0], [3, 4, 1]])
    mine = (geometry.line_colors == class_color("pedestrian")).all(axis=1)
    edges = geometry.lines[mine]
    assert len(edges) == 13
    np.testing.assert_allclose(edges[:12], layers[0].corners[0][np.array(BOX_EDGES)])
    along = edges[12, 1] - edges[12, 0]
    assert np.arctan2(along[1], along[0]) == pytest.approx(0.5)
    assert np.hypot(along[0], along[1]) == pytest.approx(1.3 * 2.0, rel=1e-5)


def test_geometry_of_an_empty_frame(make_sample):
    sample = make_sample([])
    geometry = scene.scene_geometry(sample, box_layers(sample, CLASSES, None))
    assert len(geometry.points) == 0
    assert np.isfinite(geometry.lines).all()  # range rings


def test_overlay_shades_the_front_and_writes_title_and_legend(make_sample, make_detections):
    canned = CannedRenderer()
    sample = make_sample()
    style = scene.SceneStyle(width=800, height=450)
    image = scene.draw_scene(sample, CLASSES, make_detections([BOX]), style, canned)
    bare = scene.draw_scene(sample, CLASSES, make_detections([]), style, canned)
    assert image.shape == (450, 800, 3)
    _, large = canned.asked[0]
    assert (large.width, large.height) == (1600, 900)
    corners = box_layers(sample, CLASSES, make_detections([BOX]))[0].corners[0]
    view = style.viewpoint()
    front = corners[list(FRONT_FACE)].mean(axis=0, keepdims=True)
    pixels, _ = scene.project(front, view.world_to_camera(), view.intrinsics())
    column, row = pixels[0].astype(int)
    blue = image[row, column].astype(int) - BACKGROUND
    assert blue[2] > blue[0] + 20
    assert (bare[row, column] == BACKGROUND).all()
    assert list(class_color("car")) in bare.reshape(-1, 3).tolist()  # legend
    assert bare[:50, 600:].max() > 100  # title


def test_render_puts_things_where_they_project(renderer):
    geometry, view = tiny_scene()
    image = renderer.render(geometry, view)
    assert image.shape == (100, 200, 3)
    for x in (-3.0, 0.0, 3.0):
        pixels, _ = scene.project(
            np.array([[x, 0.0, 0.0]]), view.world_to_camera(), view.intrinsics()
        )
        column, row = pixels[0].astype(int)
        assert np.abs(image[row, column].astype(int) - (200, 100, 50)).max() < 6
    assert np.abs(image[10, 100].astype(int) - (10, 20, 30)).max() < 6


def test_draw_scene_shows_the_box(renderer, make_sample):
    style = scene.SceneStyle(width=640, height=360)
    image = scene.draw_scene(make_sample([BOX]), CLASSES, None, style, renderer)
    layer = box_layers(make_sample([BOX]), CLASSES, None)[0]
    view = style.viewpoint()
    edge = layer.corners[0][[4, 5]].mean(axis=0, keepdims=True)
    pixels, _ = scene.project(edge, view.world_to_camera(), view.intrinsics())
    column, row = np.round(pixels[0]).astype(int)
    window = image[row - 2 : row + 2, column - 2 : column + 2].reshape(-1, 3).astype(int)
    assert np.abs(window - class_color("car")).max(axis=1).min() < 60


@pytest.mark.parametrize("route", ROUTES[1:], ids=str)
def test_other_routes_show_the_same(renderer, route):
    other = Renderer([route])
    try:
        image = other.render(*tiny_scene())
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    finally:
        other.close()
    reference = renderer.render(*tiny_scene())
    assert np.abs(image[10, 100].astype(int) - reference[10, 100]).max() < 6
    bright = [(picture > 90).any(axis=2) for picture in (image, reference)]
    assert (bright[0] & bright[1]).sum() > 100  # the legacy window draws thin lines


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("print('no pickle at all')", "ended with exit code 0"),
        (
            "import pickle, sys; pickle.dump(('error', 'no GL'), sys.stdout.buffer)",
            "no GL",
        ),
    ],
)
def test_probe_failure_falls_back_to_bev_with_one_warning(monkeypatch, make_sample, code, reason):
    broken_route(monkeypatch, code)
    broken = Renderer([Route("offscreen"), Route("legacy")])
    sample = make_sample([BOX])
    with pytest.warns(UserWarning, match="bird's-eye view") as caught:
        image = scene.draw_scene(sample, CLASSES, renderer=broken)
    assert len(caught) == 1
    assert str(caught[0].message).count(reason) == 2
    assert np.array_equal(image, draw_bev(sample, CLASSES, view=BevView()))


def test_second_picture_falls_back_silently_and_at_once(monkeypatch, make_sample):
    broken_route(monkeypatch, "raise SystemExit(1)")
    broken = Renderer([Route("offscreen")])
    with pytest.warns(UserWarning, match="bird's-eye view"):
        scene.draw_scene(make_sample(), CLASSES, renderer=broken)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene.draw_scene(make_sample(), CLASSES, renderer=broken)
    assert time.perf_counter() - start < 2.0


def test_next_route_is_tried(monkeypatch, renderer):
    real = rendering._Child

    def child(route, timeout):
        if route.worker == "legacy":
            raise rendering._RouteFailed("no window")
        return real(route, timeout)

    monkeypatch.setattr(rendering, "_Child", child)
    # the working route of this machine stands second
    second = Renderer([Route("legacy"), *renderer._routes[:1]])
    try:
        if renderer._routes[0].worker == "legacy":
            pytest.skip("only the legacy route works here")
        assert second.render(*tiny_scene()).shape == (100, 200, 3)
    finally:
        second.close()


def test_a_crash_in_between_is_a_failure_of_the_route(monkeypatch):
    code = (
        "import os, pickle, sys; pickle.dump(('ready', None), sys.stdout.buffer);"
        "sys.stdout.flush(); pickle.load(sys.stdin.buffer); os._exit(7)"
    )
    broken_route(monkeypatch, code)
    with pytest.raises(RenderingUnavailable, match="offscreen: ended with exit code 7"):
        Renderer([Route("offscreen")]).render(*tiny_scene())


def test_a_route_that_hangs_is_left(monkeypatch):
    broken_route(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(RenderingUnavailable, match=r"no answer within 0\.2 s"):
        Renderer([Route("offscreen")], timeout=0.2).render(*tiny_scene())


def test_black_pictures_are_noticed(monkeypatch):
    code = (
        "import numpy, pickle, sys; out = sys.stdout.buffer; pickle.dump(('ready', None), out);"
        "out.flush(); pickle.load(sys.stdin.buffer);"
        "pickle.dump(('image', numpy.zeros((48, 64, 3), 'uint8')), out)"
    )
    broken_route(monkeypatch, code)
    with pytest.raises(RenderingUnavailable, match="the test picture came out wrong"):
        Renderer([Route("offscreen")]).render(*tiny_scene())


def test_no_window_without_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(RenderingUnavailable, match=r"no display \(DISPLAY is not set\)"):
        show_window(*tiny_scene())


def test_a_window_that_cannot_open_gives_its_reason(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":77")
    broken_route(monkeypatch, "raise SystemExit(5)")
    with pytest.raises(RenderingUnavailable, match="exit code 5"):
        show_window(*tiny_scene())
