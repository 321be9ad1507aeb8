"""The configs of the published detectors: parameters as published, names checked by the goldens."""

from pathlib import Path

import pytest

from perception3d.engine.build import build
from perception3d.engine.config import load_config
from perception3d.models.heads import CenterHead, TransFusionHead

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "total", "backbone"),
    [
        ("dsvt/dsvt_waymo_pillar", 8_653_292, 2_684_928),
        ("dsvt/dsvt_waymo_voxel", 9_102_188, 3_133_824),
        ("dsvt/dsvt_nuscenes_pillar", 7_118_559, 1_200_128),
        ("scatterformer/scatterformer_waymo", 12_300_908, 4_241_856),
        # Windows of 20 cells: longer kernels, and two slots more in a pillar.
        ("scatterformer/scatterformer_nuscenes", None, 4_241_856 + 6 * 2 * 8 * 32 + 2 * 128),
        ("voxel_mamba/voxel_mamba_waymo", 20_990_284, 15_124_864),
        ("voxel_mamba/voxel_mamba_nuscenes", None, 15_124_864),
    ],
)
def test_parameters(name: str, total: int | None, backbone: int):
    detector = build(load_config(CONFIGS / f"{name}.py").model).net
    assert sum(weight.numel() for weight in detector.backbone.parameters()) == backbone
    if total is not None:
        assert sum(weight.numel() for weight in detector.parameters()) == total
    published = name in ("dsvt/dsvt_nuscenes_pillar", "scatterformer/scatterformer_nuscenes")
    assert isinstance(detector.head, TransFusionHead if published else CenterHead)
    stride = getattr(detector.backbone, "stride", 1) * detector.neck.stride
    assert detector.head.grid.stride == stride
    assert detector.head.in_channels == detector.neck.out_channels
    width, height, _ = detector.voxelizer.grid_size
    assert detector.head.grid.size == (
        width // stride,
        height // stride,
    )
