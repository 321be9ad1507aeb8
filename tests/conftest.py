"""Fixtures of several test folders."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("hypothesis") is None:
    import without_hypothesis

    without_hypothesis.install()

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--shadow",
        choices=("cuda", "simt"),
        help="repeat every operator call of tests/ops there and compare (tests/shadow.py)",
    )


def pytest_configure(config):
    config.shadow_mode = None
    where = config.getoption("--shadow")
    if where is not None:
        from shadow import Shadow

        if where == "cuda" and not torch.cuda.is_available():
            raise pytest.UsageError("--shadow cuda: no CUDA device")
        if where == "simt":
            from simt_library import load_simt_library

            load_simt_library()
        config.shadow_mode = Shadow(where)


def pytest_terminal_summary(terminalreporter, config):
    for line in config.shadow_mode.summary() if config.shadow_mode else ():
        terminalreporter.write_line(line)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The CPU and, in a run of the tests marked gpu, the CUDA device."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A generated data set in the nuScenes schema; read only."""
    from tiny_nuscenes import TinyNuScenes  # needs OpenCV and SciPy, which operators do not

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
