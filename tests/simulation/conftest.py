"""One small synthetic data set for all tests of this folder."""

import pytest

pytest.importorskip("open3d")

from synthetic_data import SyntheticData, quiet, settings

from perception3d.simulation.generate import generate


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """Two scenes of three key frames with three sweeps each; read only."""
    root = tmp_path_factory.mktemp("synthetic") / "data"
    generate(settings(root), workers=1, progress=quiet)
    return SyntheticData(root)
