"""Official names of Voxel Mamba, with the two tensors of every mixer that it stores twice."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from perception3d.checkpoint import (
    CheckpointError,
    load_official,
    official_name,
    to_official,
    translate,
)
from perception3d.models.backbones import VoxelMamba, VoxelMambaStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterHead
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("P3D_GOLDEN", ROOT.parent / "shared" / "golden"))
SPACE = {"voxel_size": (1.0, 1.0, 1.0), "point_cloud_range": (0.0, 0.0, 0.0, 8.0, 8.0, 31.0)}
STAGES = [
    VoxelMambaStage(1),
    VoxelMambaStage(2, stride=2),
    VoxelMambaStage(1, stride=4, kernel=5),
]
MIXER = "backbone_3d.block_list.2.mamba_encoder_list.1.mixer"


def build(seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return Detector(
        Voxelizer(**SPACE),
        VoxelEncoder(**SPACE, in_channels=4, channels=(8, 8)),
        VoxelMamba(**SPACE, stages=STAGES, channels=8),
        BevBackbone(8, (1,), (1,), (8,), (1,), (8,)),
        CenterHead(8, ("a", "b"), BevGrid(**SPACE)),
    )


def test_every_name_has_an_official_one_and_back():
    names = list(build().state_dict())
    official = [official_name(name, "voxel_mamba") for name in names]
    assert len(set(official)) == len(names)
    assert [translate(name, "voxel_mamba") for name in official] == names


def test_decay_rates_and_skips_are_written_twice_as_one_tensor():
    model = build()
    weights = to_official(model, "voxel_mamba")
    assert len(weights) == len(model.state_dict()) + 1 + 4 * 2 * 2  # step counter, repeats
    scan = model.backbone.blocks[2].fine_scan
    for name, ours in (("A_log", scan.A_log), ("D", scan.skip)):
        for key in (f"{MIXER}.{name}", f"{MIXER}.{name}_temp.param"):
            assert weights[key].data_ptr() == ours.data_ptr()


def test_written_weights_load_again():
    model, other = build(), build(seed=1)
    report = load_official(other, to_official(model, "voxel_mamba"), "voxel_mamba")
    assert report.complete
    assert (f"{MIXER}.D_temp.param", "backbone.blocks.2.fine_scan.skip") in report.matched
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("left_out", ["A_log", "A_log_temp.param"])
def test_one_of_two_is_enough(left_out: str):
    weights = to_official(build(), "voxel_mamba")
    del weights[f"{MIXER}.{left_out}"]
    assert load_official(build(seed=1), weights, "voxel_mamba").complete


def test_repeats_that_contradict_are_refused():
    model = build(seed=1)
    before = model.backbone.blocks[2].fine_scan.A_log.detach().clone()
    weights = to_official(build(), "voxel_mamba")
    weights[f"{MIXER}.A_log_temp.param"] = weights[f"{MIXER}.A_log"] + 1
    with pytest.raises(
        CheckpointError, match=r"A_log_temp\.param, which contradicts what backbone"
    ):
        load_official(model, weights, "voxel_mamba")
    assert torch.equal(model.backbone.blocks[2].fine_scan.A_log, before)


def test_weights_of_spconv_1_are_turned():
    model, other = build(), build(seed=1)
    weights = to_official(model, "voxel_mamba")
    sparse = [name for name, value in weights.items() if value.ndim == 5]
    assert len(sparse) == 3 + 2 * 4 + 4
    for name in sparse:
        weights[name] = weights[name].permute(1, 2, 3, 4, 0).contiguous()
    assert load_official(other, weights, "voxel_mamba").complete
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.golden
@pytest.mark.skipif(not (GOLDEN / "voxel_mamba").is_dir(), reason=f"no golden vectors in {GOLDEN}")
def test_names_shapes_and_order_are_the_official_ones():
    with np.load(GOLDEN / "voxel_mamba" / "backbone_small.npz") as arrays:
        recorded = {
            f"backbone_3d.{key.removeprefix('param.')}": arrays[key].shape
            for key in arrays.files
            if key.startswith("param.")
        }
    model = build()
    grid = {"voxel_size": (1.0, 1.0, 1.0), "point_cloud_range": (0, 0, 0, 40, 40, 32)}
    model.backbone = VoxelMamba(**grid, channels=32, dropped_layers=1)
    ours = {
        name: tuple(value.shape)
        for name, value in to_official(model, "voxel_mamba").items()
        if name.startswith("backbone_3d.") and not name.endswith("num_batches_tracked")
    }
    assert list(ours.items()) == list(recorded.items())
