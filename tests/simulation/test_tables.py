"""The tables: the devkit loads them, links hold, figures are those of the files."""

import json

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box

TABLE_OF_LINK = {
    "sample_token": "sample",
    "scene_token": "scene",
    "log_token": "log",
    "ego_pose_token": "ego_pose",
    "calibrated_sensor_token": "calibrated_sensor",
    "sensor_token": "sensor",
    "instance_token": "instance",
    "category_token": "category",
    "visibility_token": "visibility",
    "attribute_tokens": "attribute",
    "first_sample_token": "sample",
    "last_sample_token": "sample",
    "first_annotation_token": "sample_annotation",
    "last_annotation_token": "sample_annotation",
    "sample_data_token": "sample_data",
    "log_tokens": "log",
}
TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "lidarseg",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)


def test_devkit_loads_all_frames(synthetic):
    tables = synthetic.tables
    assert len(tables.scene) == 2
    assert len(tables.sample) == 6
    assert len(tables.sample_data) == 2 * 3 * (3 + 6)
    assert all(len(sample["data"]) == 7 for sample in tables.sample)
    assert len(tables.lidarseg_idx2name_mapping) == 32


def test_every_link_resolves(synthetic):
    rows = {name: synthetic.rows(name) for name in TABLES}
    tokens = {name: [row["token"] for row in rows[name]] for name in TABLES}
    for name in TABLES:
        assert len(set(tokens[name])) == len(tokens[name]) > 0
        for row in rows[name]:
            for field, value in row.items():
                if field in TABLE_OF_LINK:
                    links = value if isinstance(value, list) else [value]
                    assert set(links) <= set(tokens[TABLE_OF_LINK[field]])
                if field in ("prev", "next") and value:
                    other = rows[name][tokens[name].index(value)]
                    assert other["next" if field == "prev" else "prev"] == row["token"]
                if field == "filename":
                    assert (synthetic.root / value).is_file()


def test_chains_cover_their_rows(synthetic):
    tables = synthetic.tables
    for scene in tables.scene:
        token, count = scene["first_sample_token"], 0
        while token:
            last, token, count = token, tables.get("sample", token)["next"], count + 1
        assert (last, count) == (scene["last_sample_token"], scene["nbr_samples"])
    for instance in tables.instance:
        token, count = instance["first_annotation_token"], 0
        while token:
            last, token, count = token, tables.get("sample_annotation", token)["next"], count + 1
        assert (last, count) == (instance["last_annotation_token"], instance["nbr_annotations"])
    lidar = [row for row in tables.sample_data if row["channel"] == "LIDAR_TOP"]
    gaps = [
        row["timestamp"] - tables.get("sample_data", row["prev"])["timestamp"]
        for row in lidar
        if row["prev"]
    ]
    assert set(gaps) == {50_000, 400_000}  # three of ten sweeps were asked for


def test_point_counts_are_those_of_the_devkit(synthetic):
    tables = synthetic.tables
    for sample in tables.sample:
        path, boxes, _ = tables.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            stored = tables.get("sample_annotation", box.token)["num_lidar_pts"]
            assert points_in_box(box, points).sum() == stored
    counts = [row["num_lidar_pts"] for row in tables.sample_annotation]
    assert max(counts) > 500
    for instance in tables.instance:
        chain = tables.field2token("sample_annotation", "instance_token", instance["token"])
        assert sum(tables.get("sample_annotation", row)["num_lidar_pts"] for row in chain) > 0


def test_velocities_are_those_of_the_actors(synthetic):
    tables = synthetic.tables
    moving = 0
    for annotation in tables.sample_annotation:
        if not (annotation["prev"] and annotation["next"]):
            continue
        scene, actor = synthetic.actor_of(annotation)
        time = synthetic.time_of(annotation)
        step = 1e-3
        around = np.array([time - step, time + step])
        position, _, _ = actor.path.poses(synthetic.worlds[scene].road, around)
        truth = (position[1] - position[0]) / (2 * step)
        found = tables.box_velocity(annotation["token"])
        # The chain averages over 1 s, in which speed and heading change a little.
        assert np.linalg.norm(found[:2] - truth[:2]) < 0.05 + 0.08 * np.linalg.norm(truth[:2])
        moving += np.linalg.norm(truth) > 2
    assert moving >= 10


def test_attributes_say_what_moves(synthetic):
    tables = synthetic.tables
    names = {row["token"]: row["name"] for row in tables.attribute}
    seen = set()
    for annotation in tables.sample_annotation:
        scene, actor = synthetic.actor_of(annotation)
        speed = actor.path.speed_at(synthetic.time_of(annotation))
        found = [names[token] for token in annotation["attribute_tokens"]]
        seen |= set(found)
        name = annotation["category_name"]
        if name.startswith("movable_object"):
            assert found == []
        elif name in ("vehicle.bicycle", "vehicle.motorcycle"):
            assert found == [f"cycle.with{'' if actor.rider else 'out'}_rider"]
        else:
            assert len(found) == 1
            assert found[0].endswith("moving") == (speed > 0.2)
    assert {"vehicle.moving", "vehicle.parked", "pedestrian.moving"} <= seen
    assert {"cycle.with_rider", "cycle.without_rider"} <= seen


def test_all_ten_classes_occur_in_every_scene(synthetic):
    for scene in synthetic.tables.scene:
        names = {
            category_to_detection_name(row["category_name"])
            for row in synthetic.tables.sample_annotation
            if synthetic.tables.get("sample", row["sample_token"])["scene_token"] == scene["token"]
            and row["num_lidar_pts"] > 0
        }
        assert len(names - {None}) == 10


def _perfect(tables, samples):
    names = {row["token"]: row["name"] for row in tables.attribute}
    results = {sample["token"]: [] for sample in samples}
    for sample in samples:
        for token in sample["anns"]:
            row = tables.get("sample_annotation", token)
            if row["num_lidar_pts"] == 0:
                continue
            results[sample["token"]].append(
                {
                    "sample_token": sample["token"],
                    "translation": row["translation"],
                    "size": row["size"],
                    "rotation": row["rotation"],
                    "velocity": np.nan_to_num(tables.box_velocity(token)[:2]).tolist(),
                    "detection_name": category_to_detection_name(row["category_name"]),
                    "detection_score": 0.5,
                    "attribute_name": "".join(names[name] for name in row["attribute_tokens"]),
                }
            )
    return results


def test_evaluator_gives_perfect_boxes_full_marks(synthetic, tmp_path):
    tables = synthetic.tables
    splits = json.loads((synthetic.root / synthetic.version / "splits.json").read_text())
    assert splits == {"synthetic_train": ["scene-0001"], "synthetic_val": ["scene-0002"]}
    samples = [sample for sample in tables.sample if synthetic.scene_of(sample) == 1]
    modality = ("camera", "lidar", "radar", "map", "external")
    meta = {f"use_{name}": name == "lidar" for name in modality}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": meta, "results": _perfect(tables, samples)}))
    config = config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(
        tables, config, str(path), "synthetic_val", str(tmp_path), verbose=False
    )
    figures, _ = evaluation.evaluate()
    assert figures.mean_ap == pytest.approx(1.0, abs=1e-6)
    assert figures.nd_score > 0.99


def test_visibility_follows_what_cameras_see(synthetic):
    levels = [int(row["visibility_token"]) for row in synthetic.tables.sample_annotation]
    assert set(levels) == {1, 2, 3, 4}
    # An actor without any LiDAR point is hidden, or nearly so, from the cameras as well.
    hidden = [
        int(row["visibility_token"])
        for row in synthetic.tables.sample_annotation
        if row["num_lidar_pts"] == 0
    ]
    assert np.mean(hidden) < np.mean(levels) - 0.5


def test_map_mask_lies_under_the_ego_vehicle(synthetic):
    tables = synthetic.tables
    for scene in tables.scene:
        record = next(row for row in tables.map if scene["log_token"] in row["log_tokens"])
        sample = tables.get("sample", scene["first_sample_token"])
        data = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
        x, y, _ = tables.get("ego_pose", data["ego_pose_token"])["translation"]
        assert record["mask"].is_on_mask(x, y).all()
        assert not record["mask"].is_on_mask(x + 1000, y).any()
        assert 0.1 < (record["mask"].mask() == 255).mean() < 0.7
