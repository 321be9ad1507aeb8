"""tools/convert_checkpoint.py: all or nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perception3d.checkpoint import to_official
from perception3d.engine.build import build
from perception3d.engine.checkpoint_file import load_weights, read_checkpoint
from perception3d.engine.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import PillarEncoder
from perception3d.models.heads import BevGrid, CenterHead
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

space = dict(voxel_size=(1.0, 1.0, 8.0), point_cloud_range=(0, 0, 0, 8, 8, 8))
stages = [dict(type=DSVTStage, window=(4, 4, 1), set_size=6, blocks=1)]
model = dict(
    type=TrainableModel,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, **space),
        encoder=dict(type=PillarEncoder, in_channels=4, channels=(8, 8), **space),
        backbone=dict(type=DSVT, grid_size=(8, 8, 1), stages=stages, channels=8),
        neck=dict(type=BevBackbone, in_channels=8, blocks=(0,), strides=(1,), channels=(8,),
                  upsample=(1,), upsample_channels=(8,)),
        head=dict(type=CenterHead, in_channels=8, classes=("car",),
                  grid=dict(type=BevGrid, **space)),
    ),
)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    return path


def convert(source: Path, target: Path, config: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), str(source)]
    command += [str(target), "--system", "dsvt", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_converted_weights_load_into_the_model(tmp_path, config):
    torch.manual_seed(1)
    model = build(load_config(config).model)
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    weights = to_official(model.net, "dsvt")
    torch.save({"epoch": 20, "model_state": weights, "version": "x"}, tmp_path / "official.pth")
    result = convert(tmp_path / "official.pth", tmp_path / "new" / "ours.pth", config)
    assert result.returncode == 0, result.stderr
    assert "global_step" in result.stdout
    again = build(load_config(config).model)
    load_weights(again, read_checkpoint(tmp_path / "new" / "ours.pth"), "ours.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_nothing_is_written_unless_everything_fits(tmp_path, config):
    weights = to_official(build(load_config(config).model).net, "dsvt")
    weights["dense_head.other.weight"] = weights.pop("dense_head.shared_conv.0.weight")
    torch.save({"model_state": weights}, tmp_path / "official.pth")
    result = convert(tmp_path / "official.pth", tmp_path / "ours.pth", config)
    assert result.returncode == 1
    assert "missing: head.shared.conv.weight" in result.stdout
    assert "unexpected: dense_head.other.weight" in result.stdout
    assert "1 tensors missing, 1 unexpected; name the config" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.glob("*.pth")] == ["official.pth"]
