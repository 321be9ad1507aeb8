"""The published detectors' parameter lists find their place in our encoder and backbone."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from perception3d.checkpoint import load_official
from perception3d.engine.build import build as build_config
from perception3d.engine.config import load_config
from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.encoders import PillarEncoder, VoxelEncoder

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("P3D_GOLDEN", ROOT.parent / "shared" / "golden"))
STATE_DICTS = GOLDEN / "dsvt" / "state_dicts.json"
DTYPES = {"float32": torch.float32, "int64": torch.int64}
WAYMO = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
NUSCENES = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


class Trunk(nn.Module):
    """Encoder and backbone under the names that our Detector gives them."""

    def __init__(self, encoder: nn.Module, backbone: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone


def waymo_pillar() -> Trunk:
    stages = [DSVTStage((12, 12, 1), 36, blocks=4)]
    encoder = VoxelEncoder((0.32, 0.32, 6.0), WAYMO, 5, (192, 192))
    return Trunk(encoder, DSVT((468, 468, 1), stages, 192, hybrid_factor=(2, 2, 1)))


def waymo_voxel() -> Trunk:
    strides = [(1, 1, 4), (1, 1, 4), (1, 1, 2), None]
    stages = [
        DSVTStage((12, 12, depth), 48, pool_stride=stride)
        for depth, stride in zip((32, 8, 2, 1), strides, strict=True)
    ]
    encoder = VoxelEncoder((0.32, 0.32, 0.1875), WAYMO, 5, (192, 192))
    return Trunk(encoder, DSVT((468, 468, 32), stages, 192, hybrid_factor=(2, 2, 1)))


def nuscenes_pillar() -> Trunk:
    encoder = PillarEncoder((0.3, 0.3, 8.0), NUSCENES, 5, (128, 128))
    return Trunk(encoder, DSVT((360, 360, 1), [DSVTStage((30, 30, 1), 90, blocks=4)], 128))


@pytest.mark.golden
@pytest.mark.skipif(not STATE_DICTS.is_file(), reason=f"no {STATE_DICTS} (set P3D_GOLDEN)")
@pytest.mark.parametrize("build", [waymo_pillar, waymo_voxel, nuscenes_pillar])
def test_every_tensor_of_encoder_and_backbone_is_loaded(build):
    official = json.loads(STATE_DICTS.read_text())["models"][build.__name__]
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (shape, dtype) in official.items():
        if name.startswith(("vfe.", "backbone_3d.", "global_step")):
            values = torch.randint(1000, shape, generator=generator)
            weights[name] = values.to(DTYPES[dtype.removeprefix("torch.")])
    model = build()
    report = load_official(model, weights, "dsvt")
    assert report.complete
    assert report.reshaped == ()
    assert len(report.matched) == len(weights) - 1 == len(model.state_dict())
    state = model.state_dict()
    for theirs, ours in report.matched:
        assert torch.equal(state[ours], weights[theirs]), theirs


@pytest.mark.golden
@pytest.mark.skipif(not STATE_DICTS.is_file(), reason=f"no {STATE_DICTS} (set P3D_GOLDEN)")
def test_the_whole_nuscenes_detector_is_loaded():
    official = json.loads(STATE_DICTS.read_text())["models"]["nuscenes_pillar"]
    weights = {
        name: torch.full(shape, number, dtype=DTYPES[dtype.removeprefix("torch.")])
        for number, (name, (shape, dtype)) in enumerate(official.items())
    }
    config = load_config(ROOT / "configs" / "dsvt" / "dsvt_nuscenes_pillar.py")
    model = build_config(config.model).net
    report = load_official(model, weights, "dsvt")
    assert report.complete
    assert report.reshaped == ()
    assert report.ignored == ("global_step",)
    state = model.state_dict()
    assert len(report.matched) == len(state) == 448
    for theirs, ours in report.matched:
        assert torch.equal(state[ours], weights[theirs]), theirs
