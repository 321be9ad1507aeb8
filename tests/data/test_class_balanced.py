"""Class-balanced resampling."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.data.class_balanced import ClassBalancedDataset, balanced_frames
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.transforms import LoadAnnotations, LoadPoints, RandomRotate

SHOWN = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(0, 30), unique=True, max_size=20), max_size=6
)


@settings(deadline=None)
@given(shown=SHOWN, seed=st.integers(0, 2**32))
def test_every_class_that_is_there_gets_the_same_share(shown, seed):
    frames = balanced_frames(shown, np.random.default_rng(seed))
    present = [set(rows) for rows in shown.values() if rows]
    share = sum(map(len, present)) // max(1, len(present))
    assert len(frames) == share * len(present)
    for place, rows in enumerate(present):
        assert set(frames[place * share : (place + 1) * share]) <= rows
    assert frames == balanced_frames(shown, np.random.default_rng(seed))


def test_by_hand():
    frames = balanced_frames(
        {"car": list(range(8)), "bus": [9], "tram": []}, np.random.default_rng(0)
    )
    counts = Counter(frames)
    assert counts[9] == 4  # (8 + 1) // 2
    assert sum(counts[i] for i in range(8)) == 4


class TestDataset:
    @pytest.fixture(scope="class")
    def dataset(self, tiny, tmp_path_factory):
        summaries = build_info_files(
            TableOptions(tiny.root, tiny.version), tmp_path_factory.mktemp("infos")
        )
        pipeline = (LoadPoints(num_sweeps=0), LoadAnnotations(), RandomRotate())
        return NuScenesDataset(str(tiny.root), str(summaries[0].path), pipeline)

    def test_shares_and_seed(self, dataset, caplog):
        balanced = ClassBalancedDataset(dataset, seed=1)
        assert "shows" in caplog.text
        assert "trailer" in caplog.text
        assert balanced.frames == ClassBalancedDataset(dataset, seed=1).frames
        assert balanced.frames != ClassBalancedDataset(dataset, seed=2).frames
        assert balanced.metainfo == dataset.metainfo
        assert balanced.classes == dataset.classes
        balanced.full_init()
        assert [balanced[i].token for i in range(len(balanced))] == [
            dataset[frame].token for frame in balanced.frames
        ]

    def test_repeated_frames_are_augmented_differently(self, dataset):
        balanced = ClassBalancedDataset(dataset, seed=1)
        frame, _ = Counter(balanced.frames).most_common(1)[0]
        one, two = [i for i, drawn in enumerate(balanced.frames) if drawn == frame][:2]
        assert balanced[one].token == balanced[two].token
        assert not torch.equal(balanced[one].augmentation, balanced[two].augmentation)
        before = balanced[one].augmentation
        balanced.set_epoch(1)
        assert not torch.equal(before, balanced[one].augmentation)
        balanced.set_epoch(0)
        balanced.set_seed(9)
        assert not torch.equal(before, balanced[one].augmentation)
        balanced.set_seed(0)
        assert torch.equal(before, balanced[one].augmentation)

    def test_from_config(self, dataset):
        balanced = ClassBalancedDataset(
            {
                "type": NuScenesDataset,
                "data_root": dataset.data_root,
                "ann_file": str(dataset.info.path),
            }
        )
        assert len(balanced) > 0
