"""Rays against a scene whose actors move: one tree for what stands, one for all that moves.

Movers are copied once for every moment at which rays meet them.  The copies of one moment lie in
one layer; layers are stacked in z, so one tree and one call serve all moments.  A ray that starts
in a layer can reach another one only below the ground or farther away than sensors see.
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

LAYER_HEIGHT = 100.0
"""Distance of layers in z, m; rays are to start less than 30 m above z = 0 and to climb less."""


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
    """Where one mover is at one time.

    Attributes:
        mover: number of the actor.
        layer: layer that shows it.
        position: (3,) m.
        rotation: (3, 3).
    """

    mover: int
    layer: int
    position: Floats
    rotation: Floats


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
    """

    def __init__(self, world: World) -> None:
        self._still = _tree(world.still.vertices, world.still.faces)
        self._mesh: dict[int, Mesh] = {}
        self._first: dict[int, int] = {}
        parts = [world.still]
        count = len(world.still)
        for number in world.movers:
            actor = world.actors[number]
            mesh = actor.mesh.labelled(LABEL_OF_CATEGORY[actor.category], number)
            self._mesh[number], self._first[number] = mesh, count
            parts.append(mesh)
            count += len(mesh)
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

    def add_movers(
        self,
        hits: Hits,
        rays: Floats,
        moments: list[Moment],
        rows: NDArray[np.int64],
        layers: NDArray[np.integer[Any]],
    ) -> None:
        """Put movers in front of `hits`, in place.

        Args:
            hits: result of `still` for the rays.
            rays: (N, 6) float32.
            moments: where the movers are.
            rows: (M,) rays that may meet a mover.
            layers: (M,) layer of each of these rays.
        """
        if not moments or not len(rows):
            return
        vertices, faces, surface, start = [], [], [], 0
        for moment in moments:
            mesh = self._mesh[moment.mover]
            shift = moment.position + (0, 0, moment.layer * LAYER_HEIGHT)
            vertices.append(mesh.vertices @ moment.rotation.T + shift)
            faces.append(mesh.faces + np.int32(start))
            surface.append(self._first[moment.mover] + np.arange(len(mesh)))
            start += len(mesh.vertices)
        tree = _tree(np.concatenate(vertices), np.concatenate(faces))
        lifted = rays[rows]
        lifted[:, 2] += layers * np.float32(LAYER_HEIGHT)
        distance, face, normal = _cast(tree, lifted)
        nearer = distance < hits.distance[rows]
        target = rows[nearer]
        hits.distance[target] = distance[nearer]
        hits.surface[target] = np.concatenate(surface)[face[nearer]]
        hits.normal[target] = normal[nearer]
