"""tools/visualize.py on a toy data set, and on the real frame."""

import numpy as np
import pytest
from PIL import Image

from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.engine.dataset_pictures import (
    DatasetPictureOptions,
    complete,
    draw_dataset,
)
from perception3d.transforms.geometry import RandomScale
from perception3d.transforms.load import LoadPoints
from perception3d.visualization.bev import BevView
from perception3d.visualization.colors import GROUND_TRUTH, class_color

pytestmark = pytest.mark.usefixtures("quick_pictures")


def color_at(path, place, wanted):
    """Distance of the wanted colour from the nearest pixel around a place on the ground."""
    image = np.asarray(Image.open(path)).astype(int)
    column, row = np.round(BevView().to_pixels(np.asarray(place))).astype(int)
    window = image[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
    return np.abs(window - wanted).max(axis=1).min()


def test_annotations(run_tool, config, tmp_path):
    code, out, err = run_tool("visualize", config, "--out-dir", tmp_path, "--frames", "2")
    assert code == 0, err
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    # first and last frame; the slash of the token does not make a folder
    assert names == ["spot_0_3d.png", "spot_0_bev.png", "spot_4_3d.png", "spot_4_bev.png"]
    assert out.count("frame spot/") == 2
    left = [4 - np.sin(0.5), 20 + np.cos(0.5)]
    assert color_at(tmp_path / "spot_4_bev.png", left, class_color("car")) < 60
    assert color_at(tmp_path / "spot_0_bev.png", left, class_color("car")) > 100


def test_detections_beside_annotations(run_tool, config, checkpoint, tmp_path):
    options = ["--mode", "pred", "--checkpoint", checkpoint, "--device", "cpu", "--frames", "1"]
    left = [-np.sin(0.5), 20 + np.cos(0.5)]
    pictures = {}
    for name, extra in (("with", []), ("without", ["--no-gt"]), ("none", ["--bbox-score", "1"])):
        folder = tmp_path / name
        code, _, err = run_tool("visualize", config, *options, *extra, "--bev", "--out-dir", folder)
        assert code == 0, err
        (pictures[name],) = folder.glob("*.png")  # --bev: nothing else
    assert color_at(pictures["without"], left, class_color("car")) < 60
    assert color_at(pictures["none"], left, class_color("car")) > 100
    edge = [[x * np.cos(0.5) - np.sin(0.5), 20 + x * np.sin(0.5) + np.cos(0.5)] for x in (-1.5, -1)]
    for name, drawn in (("with", True), ("without", False)):
        nearest = min(color_at(pictures[name], place, GROUND_TRUTH) for place in edge)
        assert (nearest < 90) == drawn, name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--mode", "pred"], "--mode pred needs --checkpoint"),
        (["--frames", "0"], "--frames 0: must be at least 1"),
        (["--split", "test"], "frame spot/0 has no annotations"),
    ],
)
def test_wrong_usage_is_one_line(run_tool, config, tmp_path, options, named):
    code, _, err = run_tool("visualize", config, "--out-dir", tmp_path, *options)
    assert code == 1
    assert named in err
    assert err.count("\n") == 1


def test_classes_of_model_and_data_must_agree(run_tool, config, checkpoint, tmp_path):
    code, _, err = run_tool(
        *("visualize", config, "--mode", "pred", "--checkpoint", checkpoint, "--device", "cpu"),
        *("--split", "train", "--out-dir", tmp_path),
    )
    assert code == 1
    assert "the model knows the classes car, pedestrian, the data set bus" in err


@pytest.fixture
def frame_dataset(real_frame, tmp_path):
    """The real frame, by a pipeline that loads points alone."""
    options = TableOptions(real_frame, "v1.0-mini", max_sweeps=0)
    (summary,) = build_info_files(options, tmp_path, splits=("mini_train",))

    def make(*more):
        steps = [LoadPoints(num_sweeps=0), *more]
        return NuScenesDataset(str(real_frame), str(summary.path), steps, test_mode=True)

    return make


@pytest.mark.nuscenes
def test_real_frame_gains_annotations_and_images(frame_dataset, tmp_path):
    dataset = frame_dataset()
    sample = complete(dataset, 0)
    assert len(sample.targets) == 68
    assert len(sample.cameras.names) == 6
    options = DatasetPictureOptions(tmp_path / "out")
    files = draw_dataset(dataset, None, options, lambda text: None)
    assert [path.name.rsplit("_", 1)[1] for path in files] == ["bev.png", "3d.png", "cameras.png"]


@pytest.mark.nuscenes
def test_moved_points_get_no_unmoved_annotations(frame_dataset):
    sample = complete(frame_dataset(RandomScale((0.9, 0.9))), 0)
    assert sample.augmentation[0, 0] == pytest.approx(0.9)
    assert sample.targets is None
    assert sample.cameras is not None  # these know the augmentation
