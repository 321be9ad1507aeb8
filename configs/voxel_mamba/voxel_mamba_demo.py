"""Voxel Mamba, small enough to train on two CPU cores: for the synthetic data set.

Two stages on voxels 0.53 m high: three halvings in z see just these 15 layers.
"""

from mmengine.config import read_base

with read_base():
    from ..dsvt.dsvt_demo import *

from perception3d.models.backbones import VoxelMamba, VoxelMambaStage
from perception3d.models.encoders import VoxelEncoder

channels = 32
space = dict(voxel_size=(0.45, 0.45, 8.0 / 15), point_cloud_range=point_cloud_range)
model["net"]["voxelizer"].update(space)
model["net"]["encoder"].update(type=VoxelEncoder, channels=(32, channels), **space)
model["net"]["backbone"] = dict(
    type=VoxelMamba,
    stages=[dict(type=VoxelMambaStage, blocks=1), dict(type=VoxelMambaStage, blocks=1, stride=2)],
    channels=channels,
    init="s4d",
    **space,
)
model["net"]["neck"].update(in_channels=channels)
