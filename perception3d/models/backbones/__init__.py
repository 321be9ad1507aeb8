"""Backbones: SparseVoxels to SparseVoxels."""

from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage

__all__ = ["DSVT", "DSVTStage"]
