"""Child process that renders with Open3D: `python -m ...visualization.render_worker ROUTE`.

Open3D can end the whole process where there is no usable graphics driver, and prints to the
console; here it does both to a child.  Requests come in on stdin, answers leave on what was stdout,
both pickled: ("ready" | "image" | "error", value).  Routes: "offscreen" (Filament), "legacy"
(hidden window), "window" (visible window, until it is closed).
"""

import os
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.visualization.geometry import SceneGeometry, Viewpoint

Object = Any  # of Open3D, which ships no types
Render = Callable[[SceneGeometry, Viewpoint], NDArray[np.uint8]]


def main(route: str) -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the libraries' chatter must not fall among the answers

    def answer(kind: str, value: object = None) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        render = {"offscreen": _offscreen, "legacy": _legacy, "window": _window}[route]()
        answer("ready")
    except Exception as error:
        answer("error", f"{type(error).__name__}: {error}")
        return
    while True:
        try:
            geometry, view = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer("image", render(geometry, view))
        except Exception as error:
            answer("error", f"{type(error).__name__}: {error}")


def _offscreen() -> Render:
    import open3d
    from open3d.visualization import rendering

    def render(geometry: SceneGeometry, view: Viewpoint) -> NDArray[np.uint8]:
        renderer = rendering.OffscreenRenderer(view.width, view.height)
        scene = renderer.scene
        # colours come out as they are given; the background alone is taken for linear light
        scene.view.set_post_processing(False)
        scene.set_background([*_encode_srgb(geometry.background), 1.0])
        points, lines = _open3d_geometry(open3d, geometry)
        if len(geometry.points):
            material = rendering.MaterialRecord()
            material.shader = "defaultUnlit"
            material.point_size = geometry.point_size
            scene.add_geometry("points", points, material)
        if len(geometry.lines):
            material = rendering.MaterialRecord()
            material.shader = "unlitLine"
            material.line_width = geometry.line_width
            scene.add_geometry("lines", lines, material)
        scene.camera.set_projection(
            view.field_of_view,
            view.width / view.height,
            view.near,
            view.far,
            rendering.Camera.FovType.Vertical,
        )
        scene.camera.look_at(view.target, view.eye, [0.0, 0.0, 1.0])
        return np.asarray(renderer.render_to_image()).copy()

    return render


def _legacy() -> Render:
    import open3d

    def render(geometry: SceneGeometry, view: Viewpoint) -> NDArray[np.uint8]:
        window = _open_window(open3d, geometry, view, visible=False)
        try:
            image = np.asarray(window.capture_screen_float_buffer(do_render=True))
            return (image * 255.0).round().astype(np.uint8)
        finally:
            window.destroy_window()

    return render


def _window() -> Render:
    import open3d

    def render(geometry: SceneGeometry, view: Viewpoint) -> NDArray[np.uint8]:
        window = _open_window(open3d, geometry, view, visible=True)
        window.run()
        window.destroy_window()
        return np.zeros((0, 0, 3), dtype=np.uint8)

    return render


def _open_window(
    open3d: ModuleType, geometry: SceneGeometry, view: Viewpoint, visible: bool
) -> Object:
    window = open3d.visualization.Visualizer()
    if not window.create_window("perception3d", view.width, view.height, visible=visible):
        raise RuntimeError("no window could be created")
    options = window.get_render_option()
    options.background_color = np.asarray(geometry.background) / 255.0
    options.point_size = geometry.point_size
    points, lines = _open3d_geometry(open3d, geometry)
    window.add_geometry(points)
    window.add_geometry(lines)
    camera = open3d.camera.PinholeCameraParameters()
    focal = view.focal_length
    camera.intrinsic = open3d.camera.PinholeCameraIntrinsic(
        view.width, view.height, focal, focal, view.width / 2 - 0.5, view.height / 2 - 0.5
    )
    camera.extrinsic = view.world_to_camera()
    control = window.get_view_control()
    control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)
    control.set_constant_z_near(view.near)
    control.set_constant_z_far(view.far)
    window.poll_events()
    window.update_renderer()
    return window


def _open3d_geometry(open3d: ModuleType, geometry: SceneGeometry) -> tuple[Object, Object]:
    vectors = open3d.utility.Vector3dVector
    points = open3d.geometry.PointCloud(vectors(geometry.points.astype(np.float64)))
    points.colors = vectors(geometry.point_colors / 255.0)
    ends = geometry.lines.reshape(-1, 3).astype(np.float64)
    pairs = np.arange(len(ends), dtype=np.int32).reshape(-1, 2)
    lines = open3d.geometry.LineSet(vectors(ends), open3d.utility.Vector2iVector(pairs))
    lines.colors = vectors(geometry.line_colors / 255.0)
    return points, lines


def _encode_srgb(color: tuple[int, int, int]) -> NDArray[np.float64]:
    linear = np.asarray(color) / 255.0
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


if __name__ == "__main__":
    main(sys.argv[1])
