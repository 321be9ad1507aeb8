"""Fixtures of the data tests."""

import pytest

from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions


@pytest.fixture(scope="session")
def tiny_infos(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("infos")
    return build_info_files(TableOptions(tiny.root, tiny.version), out)
