"""ScatterFormer, small enough to train on two CPU cores: for the synthetic data set.

Data, head and schedule are those of the DSVT demo, so that the two can be compared.
"""

from mmengine.config import read_base

with read_base():
    from ..dsvt.dsvt_demo import *

from perception3d.models.backbones.scatterformer import ScatterFormer
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.necks.cascade import CascadeBackbone

channels = 64
space = dict(voxel_size=(0.45, 0.45, 0.5), point_cloud_range=point_cloud_range)  # 240 x 240 x 16
model["net"]["voxelizer"] = dict(type=Voxelizer, **space)
model["net"]["encoder"] = dict(type=VoxelEncoder, in_channels=5, channels=(32, 32), **space)
model["net"]["backbone"] = dict(
    type=ScatterFormer,
    grid_size=(240, 240, 16),
    in_channels=32,
    channels=channels,
    window=12,
    layers=(2, 2),
)
model["net"]["neck"] = dict(
    type=CascadeBackbone,
    in_channels=channels,
    channels=channels,
    cascades=1,
    blocks=(1, 1),
    strides=(1, 2),
)
model["net"]["head"].update(in_channels=channels)
