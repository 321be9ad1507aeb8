"""3D rendering that cannot take the caller down: Open3D runs in a child process."""

import atexit
import os
import pickle
import selectors
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.visualization.geometry import SceneGeometry, Viewpoint

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Route:
    """A way to a picture.

    Attributes:
        worker: what the child process does, see `render_worker`.
        environment: variables it needs.
    """

    worker: str
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = [f"{key}={value}" for key, value in self.environment.items()]
        return " ".join([self.worker, *settings])


# Open3D 0.20 renders without a display where Vulkan or EGL works; 0.19 needs the surfaceless
# platform, and ends with a segmentation fault otherwise.
ROUTES = (
    Route("offscreen"),
    Route("offscreen", {"EGL_PLATFORM": "surfaceless"}),
    Route("legacy"),
)


class RenderingUnavailable(RuntimeError):
    """No route leads to a picture; the text gives the reason of each."""


class Renderer:
    """Renders with the first route that works, found with a small test scene.

    A route that fails, by an error, by a crash of its process or by taking too long, is left for
    good and the next one tried.

    Args:
        routes: tried in this order.
        timeout: seconds a picture may take.

    Attributes:
        failure_told: the user has been warned that no route works; set by who warns.
    """

    failure_told = False

    def __init__(self, routes: Sequence[Route] = ROUTES, timeout: float = 60.0) -> None:
        self._routes = list(routes)
        self._timeout = timeout
        self._child: _Child | None = None
        self._reasons: list[str] = []

    def render(self, geometry: SceneGeometry, view: Viewpoint) -> NDArray[np.uint8]:
        """Return the picture (view.height, view.width, 3) uint8 RGB.

        Raises:
            RenderingUnavailable: no route works.
        """
        while self._routes:
            try:
                if self._child is None:
                    child = _Child(self._routes[0], self._timeout)
                    self._child = child
                    _check(child)
                return self._child.ask(geometry, view)
            except _RouteFailed as error:
                self._reasons.append(f"{self._routes[0]}: {error}")
                self._routes.pop(0)
                self.close()
        raise RenderingUnavailable("; ".join(self._reasons) or "no route given")

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.close()
            self._child = None


@cache
def default_renderer() -> Renderer:
    """Return the renderer that this process shares; its child ends with the process."""
    renderer = Renderer()
    atexit.register(renderer.close)
    return renderer


def show_window(geometry: SceneGeometry, view: Viewpoint) -> None:
    """Open a window and wait until it is closed.

    Raises:
        RenderingUnavailable: no display, or no window could be opened.
    """
    if not has_display():
        raise RenderingUnavailable("no display (DISPLAY is not set)")
    child = None
    try:
        child = _Child(Route("window"), timeout=float("inf"))
        child.ask(geometry, view)
    except _RouteFailed as error:
        raise RenderingUnavailable(str(error)) from error
    finally:
        if child is not None:
            child.close()


def has_display() -> bool:
    """Say whether a window can be shown to somebody."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


Answer = Any  # None for "ready", a picture for "image"


class _RouteFailed(Exception):
    """Why a route is left."""


class _Child:
    """A running `render_worker`."""

    def __init__(self, route: Route, timeout: float) -> None:
        path = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **route.environment, "PYTHONPATH": os.pathsep.join(path)}
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perception3d.visualization.render_worker", route.worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            self._answer("ready")
        except _RouteFailed:
            self.close()
            raise

    def ask(self, geometry: SceneGeometry, view: Viewpoint) -> NDArray[np.uint8]:
        """Send a scene, return its picture."""
        assert self._process.stdin is not None  # Popen was given PIPE
        try:
            pickle.dump((geometry, view), self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise _RouteFailed(self._ending()) from error
        image: NDArray[np.uint8] = self._answer("image")
        return image

    def close(self) -> None:
        """End the process, at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # Popen was given PIPE
            try:
                pipe.close()
            except BrokenPipeError:  # what was left to send has nobody to go to
                continue

    def _answer(self, wanted: str) -> Answer:
        stdout = self._process.stdout
        assert stdout is not None  # Popen was given PIPE
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            limit = None if self._timeout == float("inf") else self._timeout
            if not selector.select(limit):
                raise _RouteFailed(f"no answer within {self._timeout:g} s")
        try:
            kind, value = pickle.load(stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise _RouteFailed(self._ending()) from error
        if kind != wanted:
            raise _RouteFailed(str(value))
        return value

    def _ending(self) -> str:
        code = self._process.wait()
        return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _check(child: _Child) -> None:
    """Render a bright line across a dark picture, and look whether it is there."""
    line = np.array([[[-50.0, 0.0, 0.0], [50.0, 0.0, 0.0]]])
    points = np.stack([np.linspace(-9, 9, 100), np.zeros(100), np.zeros(100)], axis=1)
    geometry = SceneGeometry(
        points=points,
        point_colors=np.full((100, 3), 255, dtype=np.uint8),
        lines=line,
        line_colors=np.full((1, 3), 255, dtype=np.uint8),
        point_size=6.0,
        line_width=6.0,
        background=(0, 0, 0),
    )
    view = Viewpoint((0.0, -10.0, 2.0), (0.0, 0.0, 0.0), 64, 48)
    image = child.ask(geometry, view)
    seen = image.shape == (48, 64, 3) and image[22:26].max() > 128 and image[:8].max() < 64
    if not seen:
        raise _RouteFailed("the test picture came out wrong")
