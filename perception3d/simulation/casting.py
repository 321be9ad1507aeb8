"""Rays against a scene whose actors move.

What stands is one tree.  Each mover has a tree of its own in its own frame, built once; rays are
brought into that frame, so a mover may be met at as many moments as there are rays.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from perception3d.simulation.mesh import Mesh
from perception3d.simulation.semantics import LABEL_OF_CATEGORY
from perception3d.simulation.world import World

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Surfaces:
    """Properties of all faces: those of the standing mesh, then those of each mover.

    Attributes:
        color: (F, 3) float32 albedo.
        reflectance: (F,) float32.
        pattern: (F,) uint8.
        label: (F,) uint8 nuScenes-lidarseg category index.
        owner: (F,) int32 actor, -1 scenery.
    """

    color: Floats
    reflectance: Floats
    pattern: NDArray[np.uint8]
    label: NDArray[np.uint8]
    owner: NDArray[np.int32]


@dataclass(frozen=True)
class Hits:
    """What N rays meet first.

    Attributes:
        distance: (N,) float32 m, inf where there is nothing.
        surface: (N,) int64 row of `Surfaces`; 0 where there is nothing.
        normal: (N, 3) float32 unit normal of the face.
    """

    distance: Floats
    surface: NDArray[np.int64]
    normal: Floats


@dataclass(frozen=True)
class Moment:
    """A mover at one time, and the rays that may meet it then.

    Attributes:
        mover: number of the actor.
        position: (3,) m.
        rotation: (3, 3).
        rows: (M,) numbers of rays; all moments of a mover have different ones.
        nearest: least distance of the mover from the origins of these rays, m.
    """

    mover: int
    position: Floats
    rotation: Floats
    rows: NDArray[np.int64]
    nearest: float


def _tree(vertices: Floats, faces: NDArray[np.int32]) -> o3d.t.geometry.RaycastingScene:
    tree = o3d.t.geometry.RaycastingScene(nthreads=1)
    tree.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32)),
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(faces, dtype=np.uint32)),
    )
    return tree


def _cast(tree: o3d.t.geometry.RaycastingScene, rays: Floats) -> tuple[Floats, ...]:
    found = tree.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
    return (
        found["t_hit"].numpy(),
        found["primitive_ids"].numpy(),
        found["primitive_normals"].numpy(),
    )


class Caster:
    """Casts rays into a world, on one thread.

    Args:
        world: the scene.

    Attributes:
        surfaces: properties of all faces that can be hit.
        num_still: number of faces that stand; they are the first of `surfaces`.
    """

    def __init__(self, world: World) -> None:
        self._still = _tree(world.still.vertices, world.still.faces)
        self._movers: dict[int, tuple[o3d.t.geometry.RaycastingScene, int]] = {}
        parts = [world.still]
        count = len(world.still)
        for number in world.movers.tolist():
            actor = world.actors[number]
            mesh = actor.mesh.labelled(LABEL_OF_CATEGORY[actor.category], number)
            self._movers[number] = _tree(mesh.vertices, mesh.faces), count
            parts.append(mesh)
            count += len(mesh)
        self.num_still = len(world.still)
        self.surfaces = Surfaces(
            np.concatenate([part.color for part in parts]),
            np.concatenate([part.reflectance for part in parts]),
            np.concatenate([part.pattern for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.owner for part in parts]),
        )

    @staticmethod
    def bare(mesh: Mesh, rays: Floats) -> Floats:
        """Return the distances (N,) m of rays (N, 6) float32 to a single mesh, inf beside it."""
        return _cast(_tree(mesh.vertices, mesh.faces), rays)[0]

    def still(self, rays: Floats) -> Hits:
        """Cast rays (N, 6) float32 [origin, unit direction] at everything that stands."""
        distance, face, normal = _cast(self._still, rays)
        surface = np.where(np.isfinite(distance), face, 0).astype(np.int64)
        return Hits(distance, surface, normal)

    def blocked(self, rays: Floats) -> NDArray[np.bool_]:
        """Return whether anything that stands lies on rays (N, 6) float32."""
        tensor = o3d.core.Tensor.from_numpy(rays)
        return np.asarray(self._still.test_occlusions(tensor, nthreads=1).numpy())

    def add_movers(self, hits: Hits, rays: Floats, moments: list[Moment]) -> None:
        """Put movers in front of `hits`, in place.

        Args:
            hits: result of `still` for the rays.
            rays: (N, 6) float32.
            moments: where movers are, and which rays may meet them there.
        """
        by_mover: dict[int, list[Moment]] = {}
        # Near ones first: rays that they stop need not be tried against those behind.
        for moment in sorted(moments, key=lambda moment: moment.nearest):
            by_mover.setdefault(moment.mover, []).append(moment)
        for mover, shown in by_mover.items():
            tree, first = self._movers[mover]
            open_rows = [
                moment.rows[hits.distance[moment.rows] > moment.nearest] for moment in shown
            ]
            ends = np.cumsum([len(rows) for rows in open_rows]).tolist()
            rows = np.concatenate(open_rows)
            if not len(rows):
                continue
            near = rays[rows]
            turns = []
            for moment, start, end in zip(shown, [0, *ends[:-1]], ends, strict=True):
                turn = moment.rotation.astype(np.float32)
                part = near[start:end]
                part[:, :3] -= moment.position.astype(np.float32)
                # Origin and direction are turned alike.
                part[:] = (part.reshape(-1, 3) @ turn).reshape(-1, 6)
                turns.append(turn)
            distance, face, normal = _cast(tree, near)
            met = np.flatnonzero(distance < hits.distance[rows])
            target = rows[met]
            hits.distance[target] = distance[met]
            hits.surface[target] = first + face[met]
            turned = normal[met]
            parts = np.searchsorted(met, [0, *ends]).tolist()
            for turn, start, end in zip(turns, parts[:-1], parts[1:], strict=True):
                turned[start:end] = turned[start:end] @ turn.T
            hits.normal[target] = turned
