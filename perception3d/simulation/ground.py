"""The ground as a mesh in road coordinates: lanes, kerbs, pavements, lots, hills, markings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.mesh import GRAIN, Material, Mesh
from perception3d.simulation.road import (
    CROSSING_HALF_WIDTH,
    GROUND_END,
    KERB,
    KERB_HEIGHT,
    LOT_END,
    PAVEMENT_END,
    Road,
)
from perception3d.simulation.semantics import DRIVEABLE, FLAT_OTHER, SIDEWALK, TERRAIN

_ASPHALT = Material((0.26, 0.26, 0.27), 0.16, GRAIN)
_PAVING = Material((0.52, 0.50, 0.47), 0.30, GRAIN)
_GRASS = Material((0.22, 0.36, 0.12), 0.38, GRAIN)
_SOIL = Material((0.42, 0.33, 0.22), 0.32, GRAIN)
_PAINT = Material((0.88, 0.88, 0.85), 0.75)
_CELL = 2.0
_MATERIAL_OF_LABEL = {
    DRIVEABLE: _ASPHALT,
    SIDEWALK: _PAVING,
    TERRAIN: _GRASS,
    FLAT_OTHER: _SOIL,
}


@dataclass(frozen=True)
class Lot:
    """A plot beside the road.

    Attributes:
        start, end: arc lengths, m.
        side: 1 left of the road (positive d), -1 right.
        kind: what is on it, see `layout.py`.
    """

    start: float
    end: float
    side: int
    kind: str


_LABEL_OF_LOT = {
    "car_park": DRIVEABLE,
    "depot": DRIVEABLE,
    "bus_station": DRIVEABLE,
    "construction": FLAT_OTHER,
    "plaza": SIDEWALK,
    "building": SIDEWALK,
    "green": TERRAIN,
}


def _grid_lines(
    road: Road, start: float, end: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Return s with crossing flags and d with raised flags; kerbs stand on doubled lines."""
    edges = np.concatenate(
        [road.crossings - CROSSING_HALF_WIDTH, road.crossings + CROSSING_HALF_WIDTH]
    )
    edges = edges[(edges > start) & (edges < end)]
    lines = np.arange(start, end + _CELL, _CELL)
    lines = lines[np.abs(lines[:, None] - edges).min(axis=1, initial=np.inf) > 0.05]
    s = np.sort(np.concatenate([lines, edges, edges]))
    middle_before = (np.concatenate([s[:1] - 1, s[:-1]]) + s) / 2
    middle_after = (s + np.concatenate([s[1:], s[-1:] + 1])) / 2
    doubled_first = np.concatenate([s[1:] == s[:-1], [False]])
    probe = np.where(doubled_first, middle_before, middle_after)
    crossing = road.on_crossing(probe)
    half = np.array([2.5, 5.1, 7.65, KERB, KERB, 11.9, PAVEMENT_END, 17, 20.5, 24, 27.5, LOT_END])
    outer = np.array([35.0, 40, 46, 53, 61, GROUND_END])
    right = np.concatenate([half, outer])
    d = np.concatenate([-right[::-1], [0.0], right])
    raised_right = np.arange(len(right)) >= 4
    raised = np.concatenate([raised_right[::-1], [False], raised_right])
    return s, crossing, d, raised


def ground_labels(
    road: Road, lots: list[Lot], s: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the label of the cells around the middles s (I,) and d (J,)."""
    away = np.abs(d)
    label = np.full((len(s), len(d)), TERRAIN, dtype=np.uint8)
    for lot in lots:
        rows = (s > lot.start) & (s < lot.end)
        columns = (d * lot.side > PAVEMENT_END) & (away < LOT_END)
        label[np.ix_(rows, columns)] = _LABEL_OF_LOT[lot.kind]
    label[:, (away >= KERB) & (away < PAVEMENT_END)] = SIDEWALK
    label[:, away < KERB] = DRIVEABLE
    label[road.on_crossing(s)] = DRIVEABLE
    return label


def ground_mesh(road: Road, lots: list[Lot], start: float, end: float) -> Mesh:
    """Return the ground between two arc lengths, from hill to hill.

    Args:
        road: geometry.
        lots: plots beside the road; their kind gives their surface.
        start, end: arc lengths, m.
    """
    s, crossing, d, raised = _grid_lines(road, start, end)
    grid_s, grid_d = np.meshgrid(s, d, indexing="ij")
    x, y = road.plan(grid_s, grid_d)
    z = road.surface(grid_s, grid_d) + KERB_HEIGHT * (raised[None, :] & ~crossing[:, None])
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    label = ground_labels(road, lots, (s[1:] + s[:-1]) / 2, (d[1:] + d[:-1]) / 2)
    number = np.arange(len(vertices)).reshape(grid_s.shape)
    corner = [number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]]
    lower = np.stack([corner[0], corner[1], corner[2]], axis=-1)
    upper = np.stack([corner[0], corner[2], corner[3]], axis=-1)
    parts = []
    for value, material in _MATERIAL_OF_LABEL.items():
        cells = label == value
        faces = np.concatenate([lower[cells], upper[cells]])
        parts.append(Mesh.of(vertices, faces, material).labelled(value))
    joined = Mesh.join(parts)
    # The parts share one vertex grid: keep it once.
    return Mesh(
        vertices.astype(np.float32),
        joined.faces % np.int32(len(vertices)),
        joined.color,
        joined.reflectance,
        joined.pattern,
        joined.label,
        joined.owner,
    )


def _stripes(road: Road, rectangles: NDArray[np.float64]) -> Mesh:
    """Return painted rectangles (K, 4) s from, s to, d from, d to, just above the road."""
    s = rectangles[:, [0, 1, 1, 0]]
    d = rectangles[:, [2, 2, 3, 3]]
    x, y = road.plan(s, d)
    vertices = np.stack([x, y, road.surface(s, d) + 0.015], axis=-1)
    first = 4 * np.arange(len(s))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    return Mesh.of(vertices, faces, _PAINT).labelled(DRIVEABLE)


def markings(road: Road, start: float, end: float) -> Mesh:
    """Return lane lines between two arc lengths, stop lines and zebra crossings at side streets."""
    paint: list[tuple[float, float, float, float]] = []
    for s in np.arange(start, end, 8.0):
        if road.on_crossing(np.array([s, s + 4.0, s + 8.0])).any():
            continue
        paint += [(s, s + 3.0, d - 0.07, d + 0.07) for d in (-3.6, 3.6)]
        for d in (-7.15, -0.12, 0.12, 7.15):
            # Short pieces, since each is straight while the road bends.
            paint += [(s + 2 * n, s + 2 * n + 2, d - 0.06, d + 0.06) for n in range(4)]
    for crossing in road.crossings[(road.crossings > start + 10) & (road.crossings < end - 10)]:
        for side in (-1, 1):
            edge = crossing + side * CROSSING_HALF_WIDTH
            zebra = sorted((edge + side * 1.0, edge + side * 3.5))
            paint += [
                (zebra[0], zebra[1], d, d + 0.5) for d in np.arange(-KERB + 0.6, KERB - 0.5, 1.1)
            ]
            lane = sorted((crossing, edge))
            stop = -side * (PAVEMENT_END - 0.5)
            paint.append((lane[0], lane[1], stop - 0.2, stop + 0.2))
    return _stripes(road, np.array(paint).reshape(-1, 4))
