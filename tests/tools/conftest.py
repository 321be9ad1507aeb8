import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "tools"
CONFIG = HERE / "bright_spot_config.py"
sys.path.append(str(HERE))  # the config imports the detector that lies beside it


def load_tool(name):
    """Import tools/NAME.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_tool(capfd):
    """Call a tool as the shell does: (exit code, stdout, stderr)."""
    from perception3d.engine import cli

    def run(name, *arguments):
        tool = load_tool(name)
        with pytest.raises(SystemExit) as ended:
            cli.run(tool.main, tool.parser(), [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def config():
    return CONFIG


@pytest.fixture
def checkpoint(tmp_path):
    """The config builds a detector that finds nothing; with these weights it finds spots."""
    from perception3d.engine.build import build
    from perception3d.engine.config import load_config, plain

    model = build(plain(load_config(CONFIG))["model"])
    state = dict(model.state_dict())
    state["net.threshold"] = torch.tensor(200.0)
    path = tmp_path / "spots.pth"
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture
def street():
    """(P, 4) float32: ground 1.8 m below the sensor, and a bright spot at (10, 20, 0)."""
    rng = np.random.default_rng(0)
    points = np.empty((4000, 4), dtype=np.float32)
    points[:, :2] = rng.uniform(-40, 40, (4000, 2))
    points[:, 2] = rng.normal(-1.8, 0.03, 4000)
    points[:, 3] = rng.uniform(0, 150, 4000)
    points[:50] = [10.0, 20.0, 0.0, 250.0]
    return points


@pytest.fixture
def quick_pictures(monkeypatch):
    """Draw 3D scenes without Open3D: that route has its own tests."""
    from perception3d.visualization import scene

    class Plain:
        failure_told = False

        def render(self, geometry, view):
            return np.full((view.height, view.width, 3), geometry.background, dtype=np.uint8)

    monkeypatch.setattr(scene, "default_renderer", Plain)
