"""Loaders: against the devkit's sweep accumulation, and on damaged files."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud

from perception3d.data.frame import CameraImage
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.data.point_file import read_points
from perception3d.errors import UserError
from perception3d.transforms import LoadAnnotations, LoadCameras, LoadPoints, Pipeline


@pytest.fixture(scope="module")
def dataset(tiny, tmp_path_factory):
    summaries = build_info_files(
        TableOptions(tiny.root, tiny.version), tmp_path_factory.mktemp("infos")
    )
    return NuScenesDataset(str(tiny.root), str(summaries[0].path), test_mode=True)


@pytest.fixture(scope="module")
def frame(dataset):
    """The third key frame of a scene: ten scans of history."""
    frame = dataset.frame(2)
    assert len(frame.sweeps) == 10
    return frame


def load(frame, loader, seed=0):
    return Pipeline([loader])(frame, np.random.default_rng(seed))


class TestPoints:
    @pytest.mark.parametrize("num_sweeps", [0, 1, 4, 9])
    def test_against_the_devkit(self, tiny, frame, num_sweeps):
        tables = NuScenes(tiny.version, str(tiny.root), verbose=False)
        cloud, times = LidarPointCloud.from_file_multisweep(
            tables,
            tables.get("sample", frame.token),
            "LIDAR_TOP",
            "LIDAR_TOP",
            nsweeps=num_sweeps + 1,
            min_distance=1.0,
        )
        points = load(frame, LoadPoints(num_sweeps=num_sweeps)).points.numpy()
        own_car = (np.abs(points[:, :2]) < 1).all(axis=1) & (points[:, 4] == 0)
        assert own_car.sum() > 0  # the devkit removes them from the key frame too
        points = points[~own_car]
        np.testing.assert_allclose(points[:, :4], cloud.points.T, atol=2e-5)
        np.testing.assert_allclose(points[:, 4], times[0], atol=1e-6)

    def test_key_frame_alone_is_the_file(self, frame):
        points = load(frame, LoadPoints(num_sweeps=0)).points
        raw = np.fromfile(frame.lidar_path, dtype=np.float32).reshape(-1, 5)
        np.testing.assert_array_equal(points[:, :4].numpy(), raw[:, :4])
        assert not points[:, 4].any()

    def test_short_history_repeats_its_last_scan(self, dataset):
        short = dataset.frame(1)
        assert len(short.sweeps) == 5
        points = load(short, LoadPoints(num_sweeps=9)).points
        five = load(short, LoadPoints(num_sweeps=5)).points
        four = load(short, LoadPoints(num_sweeps=4)).points
        last = five[len(four) :]
        assert torch.equal(points, torch.cat([five, *[last] * 4]))
        fewer = load(short, LoadPoints(num_sweeps=9, repeat_missing=False)).points
        assert torch.equal(fewer, five)

    def test_no_history_repeats_the_key_frame(self, dataset):
        first = dataset.frame(0)
        assert first.sweeps == ()
        key = load(first, LoadPoints(num_sweeps=0)).points
        points = load(first, LoadPoints(num_sweeps=2)).points
        far = key[(key[:, :2].abs() >= 1).any(dim=1)]
        assert len(far) < len(key)
        assert torch.equal(points, torch.cat([key, far, far]))
        alone = load(first, LoadPoints(num_sweeps=2, repeat_missing=False)).points
        assert torch.equal(alone, key)

    def test_random_sweeps(self, frame):
        loader = LoadPoints(num_sweeps=4, random_sweeps=True)
        lags = [
            tuple(dict.fromkeys(load(frame, loader, seed).points[:, 4].tolist()))
            for seed in range(40)
        ]
        known = {np.float32(sweep.time_lag).item() for sweep in frame.sweeps}
        assert all(len(drawn) == 5 and drawn[0] == 0 for drawn in lags)
        assert {lag for drawn in lags for lag in drawn[1:]} == known  # far ones are drawn too
        assert any(list(drawn) != sorted(drawn) for drawn in lags)
        assert lags[3] == tuple(dict.fromkeys(load(frame, loader, 3).points[:, 4].tolist()))

    def test_random_order_of_a_short_history_keeps_every_scan(self, dataset):
        short = dataset.frame(1)
        ordered = load(short, LoadPoints(num_sweeps=9)).points
        mixed = load(short, LoadPoints(num_sweeps=9, random_sweeps=True)).points
        assert not torch.equal(mixed, ordered)
        rows = [tuple(row) for row in ordered.tolist()]
        assert sorted(rows) == sorted(tuple(row) for row in mixed.tolist())

    def test_arguments(self):
        with pytest.raises(ValueError, match="num_sweeps must be >= 0"):
            LoadPoints(num_sweeps=-1)
        with pytest.raises(ValueError, match="columns >= 4"):
            LoadPoints(columns=3)


class TestDamagedPoints:
    @pytest.fixture
    def damaged(self, frame, tmp_path):
        """Return the frame with a point file of the given content."""

        def make(points):
            path = tmp_path / "points.bin"
            path.write_bytes(points.astype(np.float32).tobytes())
            return replace(frame, lidar_path=path, sweeps=())

        return make

    def points(self, count=20, columns=5):
        points = np.random.default_rng(0).normal(0, 9, (count, columns))
        if columns > 4:
            points[:, 4] = np.arange(count) % 32
        return points

    def test_empty_file(self, damaged):
        with pytest.raises(UserError, match=r"points\.bin is empty; unpack"):
            load(damaged(np.zeros((0, 5))), LoadPoints())

    def test_missing_file(self, frame, tmp_path):
        lost = replace(frame, lidar_path=tmp_path / "lost.bin")
        with pytest.raises(UserError, match=r"lost\.bin cannot be read \(No such file.*data_root"):
            load(lost, LoadPoints())

    def test_truncated_file(self, damaged):
        frame = damaged(self.points())
        frame.lidar_path.write_bytes(frame.lidar_path.read_bytes()[:-7])
        with pytest.raises(UserError, match=r"393 bytes, no multiple of 20 .* truncated"):
            load(frame, LoadPoints())

    def test_wrong_column_count(self, damaged):
        with pytest.raises(UserError, match="no multiple of 20"):
            load(damaged(self.points(21, 4)), LoadPoints())
        with pytest.raises(UserError, match="column 5 of 5 is no ring number"):
            load(damaged(self.points(20, 4)), LoadPoints())  # 320 bytes: sixteen points of five?
        assert load(damaged(self.points(20, 4)), LoadPoints(0, columns=4)).points.shape == (20, 5)

    def test_non_finite_points_are_dropped_and_counted(self, damaged):
        points = self.points()
        points[3, 0], points[5, 2], points[6, 3] = np.nan, np.inf, -np.inf
        with pytest.raises(UserError, match=r"points\.bin: 3 of its 20 points .* drop_invalid"):
            load(damaged(points), LoadPoints(0))
        with pytest.warns(UserWarning, match=r"points\.bin: dropped 3 of 20 points"):
            sample = load(damaged(points), LoadPoints(0, drop_invalid=True))
        kept = np.delete(points, [3, 5, 6], axis=0).astype(np.float32)
        np.testing.assert_array_equal(sample.points[:, :4].numpy(), kept[:, :4])

    def test_all_points_non_finite(self, damaged):
        for drop in (False, True):
            with pytest.raises(UserError, match=r"points\.bin: none of its 2 points is finite"):
                load(damaged(np.full((2, 5), np.nan)), LoadPoints(3, drop_invalid=drop))

    @pytest.mark.nuscenes
    def test_real_files(self, real_frame):
        paths = sorted(real_frame.glob("**/*.pcd.bin"))
        counts = {path.name.split("__")[-1]: len(read_points(path)) for path in paths}
        assert sorted(counts.values()) == [100, 100, 400, 34688]


class TestAnnotations:
    def test_boxes_of_known_classes(self, frame):
        sample = load(frame, LoadAnnotations())
        known = frame.annotations.labels >= 0
        assert 0 < known.sum() < len(known)  # racks and animals are no classes
        np.testing.assert_allclose(
            sample.targets.boxes.tensor.numpy(), frame.annotations.boxes[known], rtol=1e-6
        )
        assert sample.targets.labels.tolist() == frame.annotations.labels[known].tolist()
        assert sample.targets.num_points.tolist() == frame.annotations.num_lidar_pts[known].tolist()

    def test_not_annotated(self, frame):
        assert load(replace(frame, annotations=None), LoadAnnotations()).targets is None


class TestCameras:
    def test_images_and_matrices(self, frame):
        cameras = load(frame, LoadCameras()).cameras
        assert cameras.names == ("CAM_FRONT", "CAM_BACK")
        assert cameras.images.shape == (2, 3, 36, 64)
        assert cameras.images.dtype == torch.uint8
        red, green, blue = cameras.images[0].float().mean(dim=(1, 2)).tolist()
        assert red > 150 > 50 > max(green, blue)
        for i, name in enumerate(cameras.names):
            expected = frame.cameras[name].lidar_to_camera
            np.testing.assert_allclose(cameras.lidar_to_camera[i].numpy(), expected, rtol=1e-5)

    @pytest.mark.parametrize("size", [(18, 32), (20, 90), (72, 128)])
    def test_resized(self, frame, size):
        full = load(frame, LoadCameras()).cameras
        small = load(frame, LoadCameras(size=size)).cameras
        assert small.images.shape == (2, 3, *size)
        points = torch.rand(50, 3) * 10 + torch.tensor([-5.0, -5.0, 1.0])
        before = points @ full.intrinsics[0].T
        after = points @ small.intrinsics[0].T
        scale = torch.tensor([size[1] / 64, size[0] / 36])
        torch.testing.assert_close(
            after[:, :2] / after[:, 2:], before[:, :2] / before[:, 2:] * scale
        )

    def test_resizing_moves_pixels_as_intrinsics_say(self, frame, tmp_path):
        """A white spot lies where its scaled coordinates are."""
        image = np.zeros((360, 640, 3), np.uint8)
        image[100:120, 400:420] = 255
        cv2.imwrite(str(tmp_path / "spot.png"), image)
        camera = CameraImage(tmp_path / "spot.png", np.eye(4), np.eye(3), 640, 360)
        cameras = load(
            replace(frame, cameras={"CAM_FRONT": camera}), LoadCameras(size=(180, 160))
        ).cameras
        rows, columns = torch.nonzero(cameras.images[0, 0] > 128, as_tuple=True)
        u, v = cameras.intrinsics[0].diag()[:2].tolist()
        assert columns.float().mean().item() == pytest.approx(u * 409.5, abs=1)
        assert rows.float().mean().item() == pytest.approx(v * 109.5, abs=1)

    def test_chosen_cameras(self, frame):
        assert load(frame, LoadCameras(names=["CAM_BACK"])).cameras.names == ("CAM_BACK",)
        with pytest.raises(UserError, match=r"no camera CAM_LEFT \(there are: CAM_FRONT, CAM_BACK"):
            load(frame, LoadCameras(names=["CAM_LEFT"]))

    def test_no_cameras(self, frame):
        assert load(replace(frame, cameras={}), LoadCameras()).cameras is None

    @pytest.mark.parametrize(
        ("content", "problem"), [(None, "cannot be read"), (b"", "damaged"), (b"no", "damaged")]
    )
    def test_damaged_image(self, frame, tmp_path, content, problem):
        path = tmp_path / "image.jpg"
        if content is not None:
            path.write_bytes(content)
        camera = replace(frame.cameras["CAM_BACK"], path=path)
        broken = replace(frame, cameras={**frame.cameras, "CAM_BACK": camera})
        with pytest.raises(UserError, match=rf"image\.jpg .*{problem}|image\.jpg is {problem}"):
            load(broken, LoadCameras())

    def test_several_sizes(self, frame, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((10, 12, 3), np.uint8))
        camera = replace(frame.cameras["CAM_BACK"], path=tmp_path / "a.png", width=12, height=10)
        mixed = replace(frame, cameras={**frame.cameras, "CAM_BACK": camera})
        with pytest.raises(UserError, match="images of several sizes"):
            load(mixed, LoadCameras())
        assert load(mixed, LoadCameras(size=(10, 12))).cameras.images.shape == (2, 3, 10, 12)
