"""Backbones: SparseVoxels to SparseVoxels."""

from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage
from perception3d.models.backbones.scatterformer import ScatterFormer
from perception3d.models.backbones.voxel_mamba import VoxelMamba
from perception3d.models.backbones.voxel_mamba_stage import VoxelMambaStage

__all__ = ["DSVT", "DSVTStage", "ScatterFormer", "VoxelMamba", "VoxelMambaStage"]
