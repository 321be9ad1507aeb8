"""Fixtures of several test folders."""

import os
from pathlib import Path

import pytest
from tiny_nuscenes import TinyNuScenes

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A generated data set in the nuScenes schema; read only."""
    return TinyNuScenes(tmp_path_factory.mktemp("tiny")).write()


@pytest.fixture(scope="session")
def real_frame():
    """Folder of the real nuScenes frame (P3D_DATA/nuscenes_frame)."""
    data = Path(os.environ.get("P3D_DATA", REPOSITORY / ".." / "shared" / "data"))
    folder = data / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip(f"no real nuScenes frame at {folder}; set P3D_DATA")
    return folder


@pytest.fixture(scope="session")
def golden_detection():
    """Folder of the golden vectors of the detection chapter (P3D_GOLDEN/detection)."""
    golden = Path(os.environ.get("P3D_GOLDEN", REPOSITORY / ".." / "shared" / "golden"))
    folder = golden / "detection"
    if not folder.is_dir():
        pytest.skip(f"no golden vectors at {folder}; set P3D_GOLDEN")
    return folder
