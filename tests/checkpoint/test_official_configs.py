"""The configs of the published detectors: parameters as published, names checked by the goldens."""

from pathlib import Path

import pytest

from perception3d.engine.build import build
from perception3d.engine.config import load_config
from perception3d.models.heads import CenterHead

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dsvt"


@pytest.mark.parametrize(
    ("name", "total", "backbone"),
    [
        ("dsvt_waymo_pillar", 8_653_292, 2_684_928),
        ("dsvt_waymo_voxel", 9_102_188, 3_133_824),
        # 7,118,559 are published with a TransFusion head, which is not that of this config.
        ("dsvt_nuscenes_pillar", None, 1_200_128),
    ],
)
def test_parameters(name: str, total: int | None, backbone: int):
    detector = build(load_config(CONFIGS / f"{name}.py").model).net
    assert sum(weight.numel() for weight in detector.backbone.parameters()) == backbone
    if total is not None:
        assert sum(weight.numel() for weight in detector.parameters()) == total
    assert isinstance(detector.head, CenterHead)
    assert detector.head.grid.stride == detector.neck.stride
    assert detector.head.in_channels == detector.neck.out_channels
    width, height, _ = detector.voxelizer.grid_size
    assert detector.head.grid.size == (
        width // detector.neck.stride,
        height // detector.neck.stride,
    )
