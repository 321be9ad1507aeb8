"""The data set: what it loads, what it refuses, and its random streams."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from perception3d.data.collate import collate
from perception3d.data.info_file import InfoFile, encode, write_info_file
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.errors import UserError
from perception3d.structures import Sample
from perception3d.transforms import (
    LoadAnnotations,
    LoadPoints,
    RandomFlip,
    RandomRotate,
    ShufflePoints,
)

TRAIN_PIPELINE = (
    {"type": LoadPoints, "num_sweeps": 3, "random_sweeps": True},
    {"type": LoadAnnotations},
    {"type": RandomFlip},
    {"type": "perception3d.transforms.geometry.RandomRotate"},
    {"type": ShufflePoints},
)


@pytest.fixture(scope="module")
def ann_file(tiny, tmp_path_factory):
    summaries = build_info_files(
        TableOptions(tiny.root, tiny.version), tmp_path_factory.mktemp("infos")
    )
    return str(summaries[0].path)


@pytest.fixture
def make(tiny, ann_file):
    def make(pipeline=TRAIN_PIPELINE, **options):
        return NuScenesDataset(str(tiny.root), ann_file, pipeline, **options)

    return make


def same(one, two):
    return torch.equal(one.points, two.points) and torch.equal(one.augmentation, two.augmentation)


def test_sample(make):
    dataset = make()
    assert len(dataset) == 5
    sample = dataset[1]
    assert isinstance(sample, Sample)
    assert sample.token == "sample-scene-0061-1"
    assert sample.points.shape[1] == 5
    assert len(sample.targets) == len(sample.targets.num_points) > 0
    assert not torch.equal(sample.augmentation, torch.eye(4, dtype=torch.float64))
    assert dataset.metainfo["classes"] == dataset.classes
    assert (dataset.metainfo["version"], dataset.metainfo["split"]) == ("v1.0-mini", "mini_train")


def test_relative_info_file(tiny, tmp_path):
    (summary,) = build_info_files(
        TableOptions(tiny.root, tiny.version), tiny.root / "infos", splits=("mini_val",)
    )
    dataset = NuScenesDataset(str(tiny.root), f"infos/{summary.path.name}")
    assert len(dataset) == 2


def test_classes_define_the_labels(make):
    names = ("pedestrian", "car")
    sample = make((LoadAnnotations(),), classes=names)[0]
    every = make((LoadAnnotations(),))
    boxes = every[0]
    for label, name in enumerate(names):
        expected = boxes.targets.boxes.tensor[boxes.targets.labels == every.classes.index(name)]
        found = sample.targets.boxes.tensor[sample.targets.labels == label]
        torch.testing.assert_close(found, expected, equal_nan=True)
    assert set(sample.targets.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (("car", "pedestrain"), "'pedestrain' is not a class of .* did you mean 'pedestrian'"),
        (("x",), "'x' is not a class of .* known: car, truck"),
        ((), "at least one"),
        (("car", "car"), "different names"),
    ],
)
def test_wrong_classes(make, classes, problem):
    with pytest.raises(UserError, match=problem):
        make(classes=classes)


def test_wrong_places(tiny, ann_file, tmp_path):
    with pytest.raises(UserError, match="data_root .* is no folder"):
        NuScenesDataset(str(tmp_path / "none"), ann_file)
    with pytest.raises(UserError, match="none.jsonl does not exist"):
        NuScenesDataset(str(tiny.root), "none.jsonl")


def test_frames_without_boxes_are_left_out_in_training(tiny, ann_file, tmp_path):
    info = InfoFile(ann_file)
    records = [info.record(i) for i in range(len(info))]
    columns = records[2]["annotations"]
    columns["num_lidar_pts"] = [0] * len(columns["names"])
    columns["num_radar_pts"] = [0] * len(columns["names"])
    records[3]["annotations"] = {key: [] for key in columns}
    records[4]["annotations"] = None
    path = tmp_path / "infos.jsonl"
    write_info_file(path, info.header, map(encode, records))

    def tokens(**options):
        dataset = NuScenesDataset(str(tiny.root), str(path), (LoadAnnotations(),), **options)
        return [dataset[i].token for i in range(len(dataset))]

    everything = [record["token"] for record in records]
    assert tokens() == everything[:2]
    assert tokens(test_mode=True) == everything
    assert tokens(filter_empty=False) == everything
    assert tokens(test_mode=True, filter_empty=True) == everything[:2]
    dataset = NuScenesDataset(str(tiny.root), str(path), (LoadAnnotations(),), test_mode=True)
    assert len(dataset[3].targets) == 0
    assert dataset[4].targets is None
    with pytest.raises(UserError, match="no frame is left of 5"):
        NuScenesDataset(str(tiny.root), str(path), classes=("trailer",))


def test_part_of_the_frames(make):
    assert [make(indices=2)[i].token for i in range(2)] == [make()[i].token for i in range(2)]
    assert make(indices=[3])[0].token == make()[3].token


def test_damaged_record(tiny, ann_file, tmp_path):
    info = InfoFile(ann_file)
    record = info.record(0)
    del record["sweeps"]
    path = tmp_path / "infos.jsonl"
    write_info_file(path, {**info.header, "num_frames": 1}, [encode(record)])
    dataset = NuScenesDataset(str(tiny.root), str(path))
    with pytest.raises(UserError, match=r"damaged at frame 0 .*sweeps"):
        dataset[0]


class TestRandomStreams:
    def test_same_seed_epoch_index_same_sample(self, make):
        one, two = make(seed=7), make(seed=7)
        np.random.seed(0)  # noqa: NPY002  # the global stream must not matter
        first = one[2]
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(3)
        one[4], one[0]  # other frames in between
        assert same(first, two[2])
        assert same(first, one[2])

    def test_seed_epoch_and_index_matter(self, make):
        dataset = make(seed=7)
        first = dataset[2]
        dataset.set_epoch(1)
        assert not same(first, dataset[2])
        dataset.set_epoch(0)
        assert same(first, dataset[2])
        dataset.set_seed(8)
        assert not same(first, dataset[2])
        dataset.set_seed(7)
        angles = [dataset[i].augmentation[0, 0].item() for i in range(5)]
        assert len(set(angles)) == 5

    def test_resumed_epoch_is_that_of_an_uninterrupted_run(self, make):
        through = make(seed=3)
        for epoch in range(3):
            through.set_epoch(epoch)
            last = [through[i] for i in range(5)]
        resumed = make(seed=3)
        resumed.set_epoch(2)
        assert all(same(frame, resumed[i]) for i, frame in enumerate(last))

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12
    @pytest.mark.parametrize("context", ["fork", "spawn"])
    def test_persistent_workers_follow(self, make, context):
        dataset = make(seed=5)
        loader = DataLoader(
            dataset,
            batch_size=2,
            num_workers=2,
            persistent_workers=True,
            collate_fn=collate,
            multiprocessing_context=context,
        )
        for epoch in (0, 1, 4):
            dataset.set_epoch(epoch)
            batches = [entry["batch"] for entry in loader]
            expected = [
                collate([dataset[i] for i in rows])["batch"] for rows in ((0, 1), (2, 3), (4,))
            ]
            for batch, want in zip(batches, expected, strict=True):
                assert batch.tokens == want.tokens
                assert torch.equal(batch.points, want.points)
                assert torch.equal(batch.augmentation, want.augmentation)


def test_labels_for_wrappers(make):
    dataset = make(classes=("car", "trailer", "truck"))
    assert set(dataset.get_cat_ids(0)) <= {0, 2}
    assert {dataset.classes[i] for i in dataset.get_cat_ids(0)} == dataset.class_names(0)


def test_pipeline_refuses_what_is_no_transform(make):
    with pytest.raises(TypeError, match="Pipeline: a step must be a Loader or a Transform"):
        make((RandomRotate(), lambda sample: sample))
