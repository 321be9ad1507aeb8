"""Shapes, placement and the road."""

import numpy as np
import pytest
from shapely.geometry import Polygon

from perception3d.simulation.catalog import KINDS, draw_body
from perception3d.simulation.mesh import Material, Mesh, beam, box, cylinder, ellipsoid
from perception3d.simulation.road import Road
from perception3d.simulation.world import EGO_SIZE

GREY = Material((0.5, 0.5, 0.5), 0.5)


def volume(mesh):
    """Signed volume: positive where faces look outward."""
    corner = mesh.vertices[mesh.faces].astype(np.float64)
    return np.einsum("fi,fi->", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])) / 6


def footprint(center, yaw, size):
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 * size
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return Polygon(square @ turn.T + center)


def test_solids_have_their_volume():
    assert volume(box((1, 2, 3), (2, 3, 4), GREY)) == pytest.approx(24, rel=1e-5)
    assert volume(beam((0, 0, 0), (3, 4, 0), 0.5, GREY)) == pytest.approx(1.25, rel=1e-5)
    assert volume(beam((0, 0, 5), (0, 0, 0), 0.5, GREY)) == pytest.approx(1.25, rel=1e-5)
    ring = 16 / 2 * np.sin(2 * np.pi / 16)
    tube = cylinder((0, 0, 0), (0, 2, 0), (1, 1), GREY, sides=16)
    assert volume(tube) == pytest.approx(2 * ring, rel=1e-5)
    ball = volume(ellipsoid((5, 0, 0), (2, 2, 2), GREY))
    assert 0.55 * 4.19 < ball < 4.19


def test_join_of_nothing_is_empty():
    assert len(Mesh.join([])) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_fill_their_box_and_close_outward(kind):
    rng = np.random.default_rng(1)
    for number in range(6):
        body = draw_body(kind, rng, rider=number % 2 == 0, walking=number % 3 == 0)
        mesh = body.shape()
        assert mesh.vertices.min(axis=0)[2] == pytest.approx(0, abs=1e-6)
        assert np.ptp(mesh.vertices, axis=0) == pytest.approx(body.size, abs=1e-4)
        assert np.abs(mesh.vertices[:, :2].max(0) + mesh.vertices[:, :2].min(0)).max() < 1e-4
        assert volume(mesh) > 0.03 * np.prod(body.size)
        assert 20 < len(mesh) < 400


def test_sizes_are_those_of_the_kind():
    rng = np.random.default_rng(2)
    means = {
        kind: np.mean([draw_body(kind, rng).size for _ in range(200)], axis=0) for kind in KINDS
    }
    # Means of nuScenes: length, width, height.
    for kind, wanted in {
        "car": (4.63, 1.95, 1.74),
        "bus": (11.1, 2.94, 3.47),
        "trailer": (12.3, 2.90, 3.87),
        "barrier": (0.50, 2.53, 0.98),
        "pedestrian": (0.73, 0.67, 1.77),
        "traffic_cone": (0.41, 0.41, 1.07),
    }.items():
        assert means[kind] == pytest.approx(wanted, rel=0.12)


def test_nothing_stands_in_anything_else(synthetic):
    for world in synthetic.worlds:
        for time in (-0.4, 0.3, 1.0):
            position, _, yaw = world.tracks.poses(np.arange(len(world.actors)), time)
            shapes = [
                footprint(position[row, :2], yaw[row], actor.size[:2])
                for row, actor in enumerate(world.actors)
            ]
            ego, turn = world.ego_poses(time)
            heading = np.arctan2(turn[0, 1, 0], turn[0, 0, 0])
            body = ego[0, :2] + 1.3 * turn[0, :2, 0]
            shapes.append(footprint(body, heading, EGO_SIZE))
            centers = np.array([shape.centroid.coords[0] for shape in shapes])
            for row, shape in enumerate(shapes):
                near = np.hypot(*(centers - centers[row]).T) < 15
                for other in np.flatnonzero(near[:row]):
                    assert shape.intersection(shapes[other]).area < 0.01


def test_actors_stand_on_the_ground(synthetic):
    world, caster = synthetic.worlds[0], synthetic.casters[0]
    position, rotation, _ = world.tracks.poses(np.arange(len(world.actors)), 0.5)
    s, _ = zip(*(actor.path.places(0.5) for actor in world.actors), strict=True)
    inside = (np.array(s) > world.extent[0]) & (np.array(s) < world.extent[1])
    rays = np.concatenate(
        [position + (0, 0, 0.05), np.tile((0, 0, -1.0), (len(position), 1))], axis=1
    )
    hits = caster.still(rays.astype(np.float32))
    # Some, such as cones, have a foot of their own there.
    own = caster.surfaces.owner[hits.surface] == np.arange(len(position))
    gap = np.abs(hits.distance - 0.05)[inside & ~own]
    assert len(gap) > 100
    assert np.mean(gap < 0.03) > 0.98
    assert (rotation[:, 2, 2] > 0.95).all()


def test_all_headings_occur(synthetic):
    world = synthetic.worlds[0]
    _, _, yaw = world.tracks.poses(np.arange(len(world.actors)), 0.0)
    counts, _ = np.histogram(np.mod(yaw, 2 * np.pi), bins=8, range=(0, 2 * np.pi))
    assert (counts > 0).all()


def test_frames_of_the_road_are_rotations_along_the_way():
    road = Road(-50, 150, np.random.default_rng(3))
    s, d = np.linspace(-40, 140, 50), np.full(50, -1.8)
    position, rotation, yaw = road.frames(s, d, 0.0)
    product = rotation @ rotation.transpose(0, 2, 1)
    assert np.abs(product - np.eye(3)).max() < 1e-12
    assert np.linalg.det(rotation) == pytest.approx(np.ones(50))
    step = np.diff(position, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    assert np.einsum("ni,ni->n", step, rotation[:-1, :, 0]).min() > 0.999
    pitch = np.arcsin(rotation[:, 2, 0])
    roll = np.arcsin(rotation[:, 2, 1])
    assert np.ptp(pitch) > 0.005
    assert np.ptp(roll) > 0.005
    assert np.ptp(yaw) > 0.1


@pytest.mark.parametrize("d", [-40.0, -20.0, -5.0, 3.0, 12.0, 25.0, 60.0])
def test_gradient_is_that_of_the_surface(d):
    road = Road(-50, 150, np.random.default_rng(4))
    s = np.linspace(-40, 140, 30)
    along, across = road.gradient(s, np.full(30, d))
    step = 1e-4
    x1, y1 = road.plan(s - step, d)
    x2, y2 = road.plan(s + step, d)
    rise = road.surface(s + step, d) - road.surface(s - step, d)
    # Positions are read off a table with steps of 0.5 m: lengths are good to half a percent.
    assert along == pytest.approx(rise / np.hypot(x2 - x1, y2 - y1), rel=0.02, abs=1e-5)
    fall = (road.surface(s, d + step) - road.surface(s, d - step)) / (2 * step)
    assert across == pytest.approx(fall, abs=1e-7)
