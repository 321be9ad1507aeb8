"""Fixtures of the metric tests."""

import pytest

from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.transforms import LoadAnnotations


@pytest.fixture(scope="session")
def dataset(tiny, tmp_path_factory):
    summaries = build_info_files(
        TableOptions(tiny.root, tiny.version), tmp_path_factory.mktemp("infos")
    )
    return NuScenesDataset(
        str(tiny.root), str(summaries[0].path), (LoadAnnotations(),), test_mode=True
    )
