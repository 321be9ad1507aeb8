"""Info files: against the real frame's arrays and against the devkit's own arithmetic."""

import json

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion
from tiny_nuscenes import TinyNuScenes

from perception3d.data import nuscenes_info
from perception3d.data.frame import frame_from_record
from perception3d.data.info_file import InfoFile
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.errors import UserError


def frames_of(path, root):
    info = InfoFile(path)
    return [frame_from_record(info.record(i), root, info.classes) for i in range(len(info))]


def wrapped(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


@pytest.mark.nuscenes
class TestRealFrame:
    @pytest.fixture(scope="class")
    def frame(self, real_frame, tmp_path_factory):
        arrays = real_frame / "boxes_lidar.npz"
        (summary,) = build_info_files(
            TableOptions(real_frame, "v1.0-mini"), tmp_path_factory.mktemp("a"), velocities=arrays
        )
        assert (summary.split, summary.num_frames) == ("mini_train", 1)
        return frames_of(summary.path, real_frame)[0]

    @pytest.fixture(scope="class")
    def arrays(self, real_frame):
        return np.load(real_frame / "boxes_lidar.npz")

    def test_boxes(self, frame, arrays):
        boxes, expected = frame.annotations.boxes, arrays["boxes_lidar"]
        assert list(frame.annotations.tokens) == arrays["annotation_token"].tolist()
        # the tables hold centres rounded to a millimetre grid
        np.testing.assert_allclose(boxes[:, :3], expected[:, :3], atol=2e-5)
        np.testing.assert_array_equal(boxes[:, 3:6], expected[:, 3:6])
        # the file has pyquaternion's yaw of the tilted box
        assert np.abs(wrapped(boxes[:, 6] - expected[:, 6])).max() < 6.2e-4
        np.testing.assert_allclose(boxes[:, 7:], expected[:, 7:], atol=1e-8, equal_nan=True)
        assert np.isnan(boxes[:, 7:]).any(axis=1).sum() == 2

    def test_classes_counts_and_attributes(self, frame, arrays):
        names = [arrays["class_names"][i] if i >= 0 else None for i in arrays["label"]]
        assert list(frame.annotations.names) == names
        for key in ("num_lidar_pts", "num_radar_pts"):
            np.testing.assert_array_equal(getattr(frame.annotations, key), arrays[key])
        assert sum(bool(a) for a in frame.annotations.attributes) == 43

    def test_cameras_and_poses(self, frame, arrays):
        assert len(frame.cameras) == 6
        for name, camera in frame.cameras.items():
            np.testing.assert_allclose(
                camera.lidar_to_camera, arrays[f"lidar2cam.{name}"], atol=1e-7
            )
            np.testing.assert_array_equal(camera.intrinsics, arrays[f"cam2img.{name}"])
            assert (camera.width, camera.height) == (1600, 900)
            assert camera.path.is_file()
        pose = arrays["ego2global"] @ arrays["lidar2ego"]
        np.testing.assert_allclose(frame.lidar_to_global, pose, atol=1e-8)
        np.testing.assert_allclose(frame.ego_to_global, arrays["ego2global"], atol=1e-8)
        assert frame.sweeps == ()


class TestAgainstDevkit:
    @pytest.fixture(scope="class")
    def tables(self, tiny):
        return NuScenes(tiny.version, str(tiny.root), verbose=False)

    @pytest.fixture(scope="class")
    def frames(self, tiny, tiny_infos):
        return [frame for summary in tiny_infos for frame in frames_of(summary.path, tiny.root)]

    def pose(self, tables, token):
        row = tables.get("sample_data", token)
        matrices = []
        for table, key in (("ego_pose", "ego_pose_token"), ("calibrated_sensor",) * 2):
            key = key if key.endswith("token") else "calibrated_sensor_token"
            pose = tables.get(table, row[key])
            matrices.append(transform_matrix(pose["translation"], Quaternion(pose["rotation"])))
        return matrices[0] @ matrices[1]

    def test_all_frames_are_there_in_order_of_time(self, frames, tables):
        assert {frame.token for frame in frames} == {row["token"] for row in tables.sample}
        train = [frame for frame in frames if frame.scene == "scene-0061"]
        assert [frame.timestamp for frame in train] == sorted(frame.timestamp for frame in train)

    def test_boxes_and_velocities(self, frames, tables):
        for frame in frames:
            lidar = tables.get("sample", frame.token)["data"]["LIDAR_TOP"]
            _, boxes, _ = tables.get_sample_data(lidar)
            assert frame.annotations.tokens == tuple(box.token for box in boxes)
            turn = frame.lidar_to_global[:3, :3].T
            for i, box in enumerate(boxes):
                row = frame.annotations.boxes[i]
                np.testing.assert_allclose(row[:3], box.center, atol=1e-8)
                np.testing.assert_allclose(row[3:6], box.wlh[[1, 0, 2]])
                heading = box.rotation_matrix[:, 0]
                assert abs(wrapped(row[6] - np.arctan2(heading[1], heading[0]))) < 1e-8
                velocity = tables.box_velocity(box.token)
                np.testing.assert_array_equal(frame.annotations.velocity[i], velocity[:2])
                np.testing.assert_allclose(row[7:], (turn @ velocity)[:2], atol=1e-8)
        unknown = [np.isnan(frame.annotations.boxes[:, 7]).sum() for frame in frames]
        assert sum(unknown) == 3  # the actor seen once, in each of three scenes

    def test_sweeps(self, frames, tables):
        for frame in frames:
            key = tables.get("sample", frame.token)["data"]["LIDAR_TOP"]
            token = tables.get("sample_data", key)["prev"]
            for sweep in frame.sweeps:
                row = tables.get("sample_data", token)
                assert str(sweep.path).endswith(row["filename"])
                lag = 1e-6 * (tables.get("sample_data", key)["timestamp"] - row["timestamp"])
                assert sweep.time_lag == pytest.approx(lag, abs=1e-9)
                motion = np.linalg.inv(self.pose(tables, key)) @ self.pose(tables, token)
                np.testing.assert_allclose(sweep.sweep_to_key, motion, atol=1e-8)
                token = row["prev"]
            assert token == "" or len(frame.sweeps) == 10
        assert sorted({len(frame.sweeps) for frame in frames}) == [0, 5, 10]

    def test_cameras(self, frames, tables):
        for frame in frames:
            data = tables.get("sample", frame.token)["data"]
            assert tuple(frame.cameras) == ("CAM_FRONT", "CAM_BACK")
            for name, camera in frame.cameras.items():
                motion = np.linalg.inv(self.pose(tables, data[name])) @ self.pose(
                    tables, data["LIDAR_TOP"]
                )
                np.testing.assert_allclose(camera.lidar_to_camera, motion, atol=1e-8)


class TestSplits:
    def options(self, tiny):
        return TableOptions(tiny.root, tiny.version, cameras=False)

    def test_usual_splits_of_mini(self, tiny_infos):
        assert [(s.split, s.num_scenes, s.num_listed) for s in tiny_infos] == [
            ("mini_train", 2, 8),
            ("mini_val", 1, 2),
        ]

    def test_own_version_with_splits_json(self, tmp_path):
        data = TinyNuScenes(tmp_path, version="v1.0-own", scenes={"a": 1, "b": 2}).write()
        with pytest.raises(UserError, match=r"no predefined splits; write .*splits.json"):
            build_info_files(TableOptions(data.root, data.version), tmp_path)
        (data.table_folder / "splits.json").write_text('{"train": ["b"], "held_out": ["a"]}')
        with pytest.raises(UserError, match="split train belongs to a version that ends in"):
            build_info_files(TableOptions(data.root, data.version), tmp_path)
        (data.table_folder / "splits.json").write_text('{"mine": ["b"], "held_out": ["a"]}')
        summaries = build_info_files(TableOptions(data.root, data.version), tmp_path)
        assert [(s.split, s.num_frames) for s in summaries] == [("mine", 2), ("held_out", 1)]

    @pytest.mark.parametrize(
        ("content", "problem"),
        [("{", "no JSON"), ('["a"]', "must map"), ('{"a": "b"}', "must map")],
    )
    def test_damaged_splits_json(self, tmp_path, content, problem):
        data = TinyNuScenes(tmp_path, scenes={"scene-0061": 1}).write()
        (data.table_folder / "splits.json").write_text(content)
        with pytest.raises(UserError, match=problem):
            build_info_files(self.options(data), tmp_path, splits=("mini_train",))

    @pytest.mark.parametrize(
        ("split", "problem"),
        [
            ("mini_trian", "unknown split mini_trian .* did you mean mini_train"),
            ("val", "split val belongs to a version that ends in trainval"),
        ],
    )
    def test_wrong_split(self, tiny, tmp_path, split, problem):
        with pytest.raises(UserError, match=problem):
            build_info_files(self.options(tiny), tmp_path, splits=(split,))

    def test_split_without_scenes(self, tmp_path):
        data = TinyNuScenes(tmp_path, scenes={"scene-0061": 1}).write()
        assert len(build_info_files(self.options(data), tmp_path)) == 1
        with pytest.raises(UserError, match="no scene of split mini_val is in"):
            build_info_files(self.options(data), tmp_path, splits=("mini_val",))

    def test_wrong_root_and_version(self, tiny, tmp_path):
        with pytest.raises(UserError, match="is no folder; give --root-path"):
            build_info_files(TableOptions(tmp_path / "none", "v1.0-mini"), tmp_path)
        with pytest.raises(UserError, match="no tables of version v1.0-maxi .* found: v1.0-mini"):
            build_info_files(TableOptions(tiny.root, "v1.0-maxi"), tmp_path)

    def test_without_annotations_frames_have_none(self, tmp_path):
        data = TinyNuScenes(
            tmp_path, version="v1.0-test", scenes={"scene-0077": 2}, annotated=False
        ).write()
        (summary,) = build_info_files(TableOptions(data.root, data.version), tmp_path)
        assert summary.split == "test"
        assert [frame.annotations for frame in frames_of(summary.path, tmp_path)] == [None, None]


class TestBadInput:
    @pytest.fixture
    def data(self, tmp_path):
        return TinyNuScenes(tmp_path, scenes={"scene-0061": 2}).write()

    def test_missing_files_are_named_at_once(self, data, tmp_path):
        victims = sorted((tmp_path / "samples" / "CAM_BACK").iterdir())
        victims += sorted((tmp_path / "sweeps" / "LIDAR_TOP").iterdir())[:3]
        for victim in victims:
            victim.unlink()
        options = TableOptions(tmp_path, data.version)
        with pytest.raises(UserError, match=r"5 of 10 sensor files .* e\.g\. \w+/.*, .*, .*unpack"):
            build_info_files(options, tmp_path)
        assert not list(tmp_path.glob("*.jsonl"))
        lidar_only = TableOptions(tmp_path, data.version, max_sweeps=0, cameras=False)
        (summary,) = build_info_files(lidar_only, tmp_path)
        frames = frames_of(summary.path, tmp_path)
        assert all(not frame.sweeps and not frame.cameras for frame in frames)

    @pytest.mark.parametrize("name", ["sample_data", "ego_pose", "sample_annotation"])
    def test_truncated_table(self, data, tmp_path, name):
        path = data.table_folder / f"{name}.json"
        path.write_text(path.read_text()[:-30])
        with pytest.raises(UserError, match=f"{name}.json is truncated or damaged"):
            build_info_files(TableOptions(tmp_path, data.version), tmp_path)

    def test_missing_pose_and_dangling_row(self, data, tmp_path):
        poses = data.table("ego_pose")
        (data.table_folder / "ego_pose.json").write_text(json.dumps(poses[1:]))
        with pytest.raises(UserError, match=r"lacks 1 poses .* pose-LIDAR"):
            build_info_files(TableOptions(tmp_path, data.version), tmp_path)
        (data.table_folder / "ego_pose.json").write_text(json.dumps(poses))
        (data.table_folder / "instance.json").write_text(json.dumps(data.table("instance")[1:]))
        with pytest.raises(UserError, match="do not fit together: a row names 'instance-"):
            build_info_files(TableOptions(tmp_path, data.version), tmp_path)

    def test_velocities_file(self, data, tmp_path):
        path = tmp_path / "velocities.npz"
        with pytest.raises(UserError, match=r"expected an \.npz with annotation_token"):
            nuscenes_info.read_velocities(path)
        np.savez(path, annotation_token=np.array(["a"]), velocity_global=np.zeros((2, 2)))
        with pytest.raises(UserError, match=r"must be \(1, 2\), got \(2, 2\)"):
            nuscenes_info.read_velocities(path)
