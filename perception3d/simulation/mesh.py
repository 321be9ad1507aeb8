"""Triangle meshes with surface properties, and the solids that shapes are made of."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]

PLAIN, GRAIN, FACADE, FOLIAGE = 0, 1, 2, 3
"""Surface patterns drawn by the cameras."""


@dataclass(frozen=True)
class Material:
    """What light does on a surface.

    Attributes:
        color: albedo red, green, blue in 0..1.
        reflectance: share of the LiDAR's infrared light that comes back at normal incidence, 0..1.
        pattern: PLAIN, GRAIN (fine mottle), FACADE (rows of windows) or FOLIAGE (coarse mottle).
    """

    color: tuple[float, float, float]
    reflectance: float
    pattern: int = PLAIN


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside, with one row of properties per face.

    Attributes:
        vertices: (V, 3) float32, m.
        faces: (F, 3) int32, vertex rows.
        color: (F, 3) float32 albedo.
        reflectance: (F,) float32.
        pattern: (F,) uint8.
        label: (F,) uint8 nuScenes-lidarseg category index.
        owner: (F,) int32 number of the actor, -1 for scenery.
    """

    vertices: Floats
    faces: NDArray[np.int32]
    color: Floats
    reflectance: Floats
    pattern: NDArray[np.uint8]
    label: NDArray[np.uint8]
    owner: NDArray[np.int32]

    @staticmethod
    def of(vertices: ArrayLike, faces: ArrayLike, material: Material) -> "Mesh":
        """Return a mesh of one material, label 0 (noise) and no owner."""
        corner = np.asarray(vertices, dtype=np.float32).reshape(-1, 3)
        triangle = np.asarray(faces, dtype=np.int32).reshape(-1, 3)
        count = len(triangle)
        return Mesh(
            corner,
            triangle,
            np.full((count, 3), material.color, dtype=np.float32),
            np.full(count, material.reflectance, dtype=np.float32),
            np.full(count, material.pattern, dtype=np.uint8),
            np.zeros(count, dtype=np.uint8),
            np.full(count, -1, dtype=np.int32),
        )

    @staticmethod
    def join(parts: list["Mesh"]) -> "Mesh":
        """Return all triangles of several meshes, in order."""
        if not parts:
            return Mesh.of(np.zeros((0, 3)), np.zeros((0, 3)), Material((0, 0, 0), 0))
        starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
        return Mesh(
            np.concatenate([part.vertices for part in parts]),
            np.concatenate(
                [part.faces + np.int32(start) for part, start in zip(parts, starts, strict=True)]
            ),
            np.concatenate([part.color for part in parts]),
            np.concatenate([part.reflectance for part in parts]),
            np.concatenate([part.pattern for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.owner for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.faces)

    def moved(self, rotation: ArrayLike, translation: ArrayLike) -> "Mesh":
        """Return the mesh turned by (3, 3), then shifted by (3,) m."""
        turned = self.vertices @ np.asarray(rotation, dtype=np.float64).T + np.asarray(translation)
        return replace(self, vertices=turned.astype(np.float32))

    def labelled(self, label: int, owner: int = -1) -> "Mesh":
        """Return the mesh with one label and one owner for all faces."""
        return replace(
            self,
            label=np.full(len(self), label, dtype=np.uint8),
            owner=np.full(len(self), owner, dtype=np.int32),
        )

    def fitted(self, size: ArrayLike) -> "Mesh":
        """Return the mesh stretched to fill exactly length, width, height, standing on z = 0."""
        lower, upper = self.vertices.min(axis=0), self.vertices.max(axis=0)
        wanted = np.asarray(size, dtype=np.float64)
        unit = (self.vertices - lower) / (upper - lower) - (0.5, 0.5, 0.0)
        return replace(self, vertices=(unit * wanted).astype(np.float32))

    def normals(self) -> Floats:
        """Return outward unit normals (F, 3) float32; zero for a face without area."""
        corner = self.vertices[self.faces]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        return np.asarray(normal / np.maximum(length, 1e-12), dtype=np.float32)


@lru_cache
def _loft_faces(count: int) -> NDArray[np.int32]:
    """Return the faces of a loft between polygons of `count` corners: sides, then both ends."""
    here = np.arange(count)
    there = np.roll(here, -1)
    sides = np.concatenate(
        [
            np.stack([here, there, there + count], axis=1),
            np.stack([here, there + count, here + count], axis=1),
        ]
    )
    fan = np.stack([np.zeros(count - 2, int), here[1:-1], here[2:]], axis=1)
    return np.asarray(np.concatenate([sides, fan[:, ::-1], fan + count]), dtype=np.int32)


def loft(first: ArrayLike, last: ArrayLike, material: Material) -> Mesh:
    """Return the closed solid between two convex polygons (n, 3) with matching corners."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(last, dtype=np.float64)
    # Newell's normal of the middle polygon says which way round the corners go.
    x, y, z = ((a + b) / 2).T
    after = np.arange(1 - len(a), 1)
    normal_x = ((y - y[after]) * (z + z[after])).sum()
    normal_y = ((z - z[after]) * (x + x[after])).sum()
    normal_z = ((x - x[after]) * (y + y[after])).sum()
    along = (b - a).sum(axis=0)
    if normal_x * along[0] + normal_y * along[1] + normal_z * along[2] < 0:
        a, b = a[::-1], b[::-1]
    return Mesh.of(np.concatenate([a, b]), _loft_faces(len(a)), material)


def _ring_axes(axis: Floats) -> tuple[Floats, Floats]:
    """Return two unit vectors at right angles to a direction (3,) and to each other."""
    x, y, z = (axis / np.sqrt(axis @ axis)).tolist()
    if abs(z) < 0.9:
        level = np.hypot(x, y)
        side = np.array([y, -x, 0.0]) / level
        return side, np.array([z * x, z * y, -level * level]) / level
    level = np.hypot(y, z)
    return np.array([0.0, z, -y]) / level, np.array([-level * level, x * y, x * z]) / level


def box(center: ArrayLike, size: ArrayLike, material: Material) -> Mesh:
    """Return a box with edges along the axes; centre and size in m."""
    half = np.asarray(size, dtype=np.float64) / 2
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    lower = np.column_stack([square * half[:2], np.full(4, -half[2])]) + np.asarray(center)
    return loft(lower, lower + (0, 0, 2 * half[2]), material)


def beam(start: ArrayLike, end: ArrayLike, thickness: float, material: Material) -> Mesh:
    """Return a bar of square cross-section (thickness in m) from start to end (3,)."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    side, up = _ring_axes(b - a)
    square = np.stack([side + up, up - side, -side - up, side - up]) * (thickness / 2)
    return loft(a + square, b + square, material)


def extrusion(profile: ArrayLike, width: float, material: Material, inset: float = 0.0) -> Mesh:
    """Return a side profile (n, 2) of (x, z) spread over y = -width/2 .. width/2.

    The profile must be convex.  `inset` narrows its highest corners on both sides, in m.
    """
    outline = np.asarray(profile, dtype=np.float64)
    height = outline[:, 1]
    raised = (height - height.min()) / (height.max() - height.min())
    half = width / 2 - inset * raised
    left = np.column_stack([outline[:, 0], half, height])
    return loft(left * (1, -1, 1), left, material)


def cylinder(
    start: ArrayLike, end: ArrayLike, radii: tuple[float, float], material: Material, sides: int = 8
) -> Mesh:
    """Return a (truncated) cone about the line from start to end with the radii at both ends, m."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    side, up = _ring_axes(b - a)
    angle = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = np.outer(np.cos(angle), side) + np.outer(np.sin(angle), up)
    return loft(a + ring * radii[0], b + ring * radii[1], material)


def ellipsoid(center: ArrayLike, size: ArrayLike, material: Material, sides: int = 8) -> Mesh:
    """Return a low-poly ellipsoid of full axes `size`, m."""
    latitudes = np.deg2rad([-90, -45, 0, 45, 90])[1:-1]
    longitude = np.arange(sides) * 2 * np.pi / sides
    rings = [
        np.column_stack(
            [
                np.cos(latitude) * np.cos(longitude),
                np.cos(latitude) * np.sin(longitude),
                np.full(sides, np.sin(latitude)),
            ]
        )
        for latitude in latitudes
    ]
    vertices = np.concatenate([[[0, 0, -1]], *rings, [[0, 0, 1]]])
    here = np.arange(sides)
    there = np.roll(here, -1)
    top = len(vertices) - 1
    faces = [np.column_stack([np.zeros(sides, int), 1 + there, 1 + here])]
    for ring in range(len(rings) - 1):
        low, high = 1 + ring * sides, 1 + (ring + 1) * sides
        faces.append(np.column_stack([low + here, low + there, high + there]))
        faces.append(np.column_stack([low + here, high + there, high + here]))
    last = 1 + (len(rings) - 1) * sides
    faces.append(np.column_stack([last + here, last + there, np.full(sides, top)]))
    scaled = vertices * np.asarray(size, dtype=np.float64) / 2 + np.asarray(center)
    return Mesh.of(scaled, np.concatenate(faces), material)
