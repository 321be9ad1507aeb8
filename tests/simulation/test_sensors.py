"""What the sensors record: sweeps that accumulate, labels, pictures, occupancy."""

import numpy as np
import open3d as o3d
import pytest
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import view_points
from PIL import Image
from pyquaternion import Quaternion
from scipy.spatial import ConvexHull, Delaunay

from perception3d.simulation.camera import CameraRig
from perception3d.simulation.lidar import ELEVATION, NUM_STEPS, Lidar
from perception3d.simulation.occupancy import LOWER, SHAPE, VOXEL
from perception3d.simulation.relief import Relief
from perception3d.simulation.rig import CAMERAS, LIDAR, SWEEP_END, SWEEP_PERIOD, sensor_poses
from perception3d.simulation.semantics import (
    CATEGORIES,
    DRIVEABLE,
    EGO,
    LABEL_OF_CATEGORY,
    occupancy_ids,
)


def surface_distance(mesh, points):
    """Distance (N,) of points (N, 3) to a mesh, m."""
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.vertices)),
        o3d.core.Tensor.from_numpy(mesh.faces.astype(np.uint32)),
    )
    points = o3d.core.Tensor.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
    return scene.compute_distance(points, nthreads=1).numpy()


def to_local(synthetic, data_token, points):
    """Bring points (N, 3) of a LiDAR file into the frame of its world, by way of the tables."""
    tables = synthetic.tables
    data = tables.get("sample_data", data_token)
    for name in ("calibrated_sensor", "ego_pose"):
        pose = tables.get(name, data[f"{name}_token"])
        points = points @ Quaternion(pose["rotation"]).rotation_matrix.T + pose["translation"]
    sample = tables.get("sample", data["sample_token"])
    return points - synthetic.offset(synthetic.scene_of(sample))


def read_points(synthetic, data_token):
    path = synthetic.tables.get_sample_data_path(data_token)
    return np.fromfile(path, dtype=np.float32).reshape(-1, 5)


def test_point_columns(synthetic):
    for sample in synthetic.tables.sample:
        points = read_points(synthetic, sample["data"]["LIDAR_TOP"])
        assert 18_000 < len(points) <= 32 * NUM_STEPS
        assert np.isfinite(points).all()
        assert points[:, 3].min() >= 0
        assert points[:, 3].max() <= 255
        assert points[:, 3].std() > 10
        assert set(np.unique(points[:, 4])) == set(range(32))
        distance = np.linalg.norm(points[:, :3], axis=1)
        assert distance.max() < 91
        # Far points leave the sensor at the elevation of their ring.
        far = distance > 10
        rise = np.arcsin(points[far, 2] / distance[far])
        assert np.abs(rise - ELEVATION[points[far, 4].astype(int)]).max() < 0.01


def test_sweeps_of_the_moving_vehicle_fall_on_the_standing_world(synthetic):
    tables = synthetic.tables
    for sample in tables.sample[::3]:
        world = synthetic.worlds[synthetic.scene_of(sample)]
        reference = sample["data"]["LIDAR_TOP"]
        cloud, lag = LidarPointCloud.from_file_multisweep(
            tables, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=3
        )
        assert set(np.round(np.unique(lag), 3)) == {0.0, 0.05, 0.1}
        moving = {row["token"] for row in tables.attribute if row["name"].endswith("moving")}
        cycles = {row["token"] for row in tables.attribute if row["name"].endswith("with_rider")}
        still = np.ones(cloud.points.shape[1], dtype=bool)
        for box in tables.get_sample_data(reference)[1]:
            attributes = tables.get("sample_annotation", box.token)["attribute_tokens"]
            if set(attributes) & (moving | cycles):
                reach = np.hypot(*box.wlh[:2]) / 2 + 2
                still &= np.hypot(*(cloud.points[:2].T - box.center[:2]).T) > reach
        for age in (0.0, 0.1):
            mine = np.isclose(lag[0], age) & still
            assert mine.sum() > 5000
            points = to_local(synthetic, reference, cloud.points[:3, mine].T)
            away = surface_distance(world.still, points)
            # Range noise is 2 cm.
            assert np.median(away) < 0.02
            assert np.mean(away < 0.08) > 0.99


def test_movers_are_met_where_they_are_when_the_beam_passes(synthetic):
    world, caster = synthetic.worlds[0], synthetic.casters[0]
    end = 0.4
    sweep = Lidar(world, caster).scan(np.array([end]), np.random.default_rng(0))[0]
    position, rotation = sensor_poses(LIDAR, *world.ego_poses(end))
    points = sweep.points[:, :3] @ rotation[0].T + position[0]
    ego, turn = world.ego_poses(end)
    ahead = (points - ego[0]) @ turn[0] - (0.94, 0, 0)
    step = np.mod(SWEEP_END - np.arctan2(ahead[:, 1], ahead[:, 0]), 2 * np.pi) / (2 * np.pi)
    checked = 0
    for number in world.movers:
        actor = world.actors[number]
        mine = sweep.owner == number
        if mine.sum() < 30 or actor.path.speed_at(end) < 3:
            continue
        away = []
        when = end + SWEEP_PERIOD * (np.median(step[mine]) - 1)
        for time in (when, when + SWEEP_PERIOD):
            place, turn, _ = actor.path.poses(world.road, time)
            local = (points[mine] - place[0]) @ turn[0]
            away.append(np.median(surface_distance(actor.mesh, local)))
        assert away[0] < 0.03
        checked += away[1] > 0.06  # one turn later it has moved on, if along the view
    assert checked >= 2


def test_own_returns_lie_where_readers_remove_them(synthetic):
    tables = synthetic.tables
    token = tables.sample[0]["data"]["LIDAR_TOP"]
    label = np.fromfile(synthetic.root / tables.get("lidarseg", token)["filename"], dtype=np.uint8)
    points = read_points(synthetic, token)
    own = label == EGO
    assert own.sum() > 200
    assert np.abs(points[own, :2]).max() < 1.0


def test_point_labels_agree_with_boxes(synthetic):
    tables = synthetic.tables
    actor_labels = sorted(set(LABEL_OF_CATEGORY.values()) - set(range(DRIVEABLE, 32)))
    for sample in tables.sample:
        token = sample["data"]["LIDAR_TOP"]
        label = np.fromfile(
            synthetic.root / tables.get("lidarseg", token)["filename"], dtype=np.uint8
        )
        points = read_points(synthetic, token)[:, :3]
        assert len(label) == len(points)
        assert {DRIVEABLE, LABEL_OF_CATEGORY["flat.sidewalk"]} <= set(label)
        assert {LABEL_OF_CATEGORY["static.manmade"]} <= set(label)
        claimed = np.zeros(len(points), dtype=bool)
        for box in tables.get_boxes(token):
            box.translate(-np.array(tables.get("ego_pose", token)["translation"]))
            box.rotate(Quaternion(tables.get("ego_pose", token)["rotation"]).inverse)
            box.translate(-LIDAR.position)
            box.rotate(Quaternion(matrix=LIDAR.rotation).inverse)
            # Upright boxes around bodies that follow the slope, seen up to 50 ms earlier.
            local = (points - box.center) @ box.rotation_matrix
            inside = (np.abs(local) < box.wlh[[1, 0, 2]] / 2 + 0.35).all(axis=1)
            claimed |= inside & (label == LABEL_OF_CATEGORY[box.name])
        things = np.isin(label, actor_labels) & (np.hypot(*points[:, :2].T) < 60)
        assert things.sum() > 500
        assert claimed[things].mean() > 0.97


def test_cameras_show_actors_inside_their_projected_boxes(synthetic):
    tables = synthetic.tables
    world, caster = synthetic.worlds[1], synthetic.casters[1]
    sample = tables.sample[4]
    assert synthetic.scene_of(sample) == 1
    rig = CameraRig(world, caster, Relief(world), (352, 128), np.random.default_rng(0))
    compared = 0
    for number, camera in enumerate(CAMERAS):
        data = tables.get("sample_data", sample["data"][camera.channel])
        time = synthetic.time_of(sample) - (sample["timestamp"] - data["timestamp"]) * 1e-6
        hits, _ = rig.look(rig.view(number, time), np.arange(352 * 128))
        owner = caster.surfaces.owner[hits.surface]
        owner[np.isinf(hits.distance)] = -1
        _, boxes, matrix = tables.get_sample_data(data["token"])
        for box in boxes:
            annotation = tables.get("sample_annotation", box.token)
            _, actor = synthetic.actor_of(annotation)
            pixels = np.flatnonzero(owner == world.actors.index(actor))
            if actor.path.moves or box.corners()[2].min() < 0.5 or len(pixels) < 40:
                continue
            outline = view_points(box.corners(), matrix, normalize=True)[:2].T
            hull = outline[ConvexHull(outline).vertices]
            # 5 % and one pixel wider: bodies follow the slope, boxes are upright.
            middle = hull.mean(axis=0)
            shift = hull - middle
            length = np.linalg.norm(shift, axis=1, keepdims=True)
            wider = middle + shift * (1.05 + 1.5 / length)
            v, u = np.divmod(pixels, 352)
            place = np.stack([u + 0.5, v + 0.5], axis=1)
            assert np.mean(Delaunay(wider).find_simplex(place) >= 0) > 0.97
            compared += 1
    assert compared >= 10


def test_pictures_are_files_of_the_wanted_size(synthetic):
    tables = synthetic.tables
    for data in tables.sample_data:
        if data["sensor_modality"] != "camera":
            continue
        picture = np.asarray(Image.open(tables.get_sample_data_path(data["token"])))
        assert picture.shape == (128, 352, 3) == (data["height"], data["width"], 3)
        assert picture.std() > 15
        sample = tables.get("sample", data["sample_token"])
        assert 0 < sample["timestamp"] - data["timestamp"] < 50_000


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.channel)
def test_cameras_fire_when_the_lidar_looks_along_them(camera):
    way = np.mod(SWEEP_END - camera.yaw, 2 * np.pi) / (2 * np.pi)
    assert camera.lag() == pytest.approx(SWEEP_PERIOD * (1 - way))


def occupancy_rows(synthetic, sample):
    scene, lidar = sample["scene_token"], sample["data"]["LIDAR_TOP"]
    folder = synthetic.root / "nuScenes-Occupancy" / f"scene_{scene}" / "occupancy"
    return np.load(folder / f"{lidar}.npy", allow_pickle=False)


def test_occupancy_holds_the_points_of_the_sweep(synthetic):
    tables = synthetic.tables
    ids = occupancy_ids()
    for sample in tables.sample:
        rows = occupancy_rows(synthetic, sample)
        assert rows.ndim == 2
        assert rows.shape[1] == 4
        assert rows.min() >= 0
        assert (rows[:, :3] < np.array(SHAPE)[::-1]).all()
        assert len(np.unique(rows[:, :3], axis=0)) == len(rows)
        assert rows[:, 3].min() >= 1
        assert rows[:, 3].max() <= 16
        dense = np.zeros(SHAPE, dtype=np.uint8)
        dense[rows[:, 2], rows[:, 1], rows[:, 0]] = rows[:, 3]
        token = sample["data"]["LIDAR_TOP"]
        label = np.fromfile(
            synthetic.root / tables.get("lidarseg", token)["filename"], dtype=np.uint8
        )
        points = read_points(synthetic, token)[:, :3]
        cell = np.floor((points - LOWER) / VOXEL).astype(int)
        kept = ((cell >= 1) & (cell < np.array(SHAPE) - 1)).all(axis=1) & (label != EGO)
        cell, wanted = cell[kept], ids[label[kept]]
        # Range noise and the time of the turn carry a point into the next voxel at most.
        steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
        around = np.stack([dense[tuple((cell + step).T)] for step in steps], axis=1)
        agree = (around == wanted[:, None]).any(axis=1)
        assert agree.mean() > 0.97
        direct = dense[tuple(cell.T)]
        assert np.mean(direct == wanted) > 0.7


def test_occupancy_ids_are_those_of_the_benchmark():
    ids = dict(zip([name for name, _ in CATEGORIES], occupancy_ids().tolist(), strict=True))
    assert ids["movable_object.barrier"] == 1
    assert ids["vehicle.bus.bendy"] == ids["vehicle.bus.rigid"] == 3
    assert ids["human.pedestrian.construction_worker"] == 7
    assert ids["human.pedestrian.stroller"] == ids["vehicle.ego"] == ids["noise"] == 0
    assert ids["flat.driveable_surface"] == 11
    assert ids["static.vegetation"] == 16


def test_ground_has_no_holes(synthetic):
    world, caster = synthetic.worlds[0], synthetic.casters[0]
    rng = np.random.default_rng(0)
    s = rng.uniform(world.extent[0] + 1, world.extent[1] - 1, 3000)
    d = rng.uniform(-70, 70, 3000)
    x, y = world.road.plan(s, d)
    down = np.tile(np.array([0, 0, -1.0]), (3000, 1))
    origin = np.stack([x, y, np.full(3000, 60.0)], axis=1)
    hits = caster.still(np.concatenate([origin, down], axis=1).astype(np.float32))
    assert np.isfinite(hits.distance).all()
    ground = 60 - hits.distance
    level = caster.surfaces.label[hits.surface]
    flat = (level >= DRIVEABLE) & (level <= LABEL_OF_CATEGORY["flat.terrain"])
    away = np.abs(ground - world.road.height(s, d))[flat]
    assert np.quantile(away, 0.98) < 0.05
