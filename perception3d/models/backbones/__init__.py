"""Backbones: SparseVoxels to SparseVoxels."""

from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage
from perception3d.models.backbones.scatterformer import ScatterFormer

__all__ = ["DSVT", "DSVTStage", "ScatterFormer"]
