"""Who stands where at which time, so that nothing is put into anything else."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _corners_apart(
    center: Floats,
    yaw: Floats,
    half: Floats,
    other_center: Floats,
    other_yaw: Floats,
    other: Floats,
) -> NDArray[np.bool_]:
    """Return for K pairs of rectangles whether an edge direction of the first parts them."""
    shift = other_center - center
    turn = other_yaw - yaw
    along = np.abs(shift[:, 0] * np.cos(yaw) + shift[:, 1] * np.sin(yaw))
    across = np.abs(shift[:, 1] * np.cos(yaw) - shift[:, 0] * np.sin(yaw))
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    reach_along = half[:, 0] + other[:, 0] * cos + other[:, 1] * sin
    reach_across = half[:, 1] + other[:, 0] * sin + other[:, 1] * cos
    return np.asarray((along > reach_along) | (across > reach_across))


class Occupied:
    """Rectangles on the ground over time.

    Args:
        times: (T,) times in s at which places are compared.
    """

    def __init__(self, times: Floats) -> None:
        self.times = times
        self._center: Floats = np.zeros((0, len(times), 2))
        self._yaw: Floats = np.zeros((0, len(times)))
        self._half: Floats = np.zeros((0, 2))

    def free(self, center: Floats, yaw: Floats, size: tuple[float, float], margin: float) -> bool:
        """Return whether a rectangle keeps `margin` m from all others at all times.

        Args:
            center: (T, 2) m.
            yaw: (T,) rad.
            size: length and width, m.
            margin: least gap, m.
        """
        half = np.asarray(size) / 2 + margin
        reach = np.hypot(*half) + np.hypot(self._half[:, 0], self._half[:, 1])
        shift = self._center - center
        squared = shift[..., 0] ** 2 + shift[..., 1] ** 2
        near, when = np.nonzero(squared < np.square(reach)[:, None])
        if not len(near):
            return True
        mine = np.broadcast_to(half, (len(near), 2))
        here = (center[when], yaw[when], mine)
        there = (self._center[near, when], self._yaw[near, when], self._half[near])
        return bool((_corners_apart(*here, *there) | _corners_apart(*there, *here)).all())

    def add(self, center: Floats, yaw: Floats, size: tuple[float, float]) -> None:
        """Take the place of a rectangle; arguments as in `free`."""
        self._center = np.concatenate([self._center, center[None]])
        self._yaw = np.concatenate([self._yaw, yaw[None]])
        self._half = np.concatenate([self._half, np.asarray(size)[None] / 2])
