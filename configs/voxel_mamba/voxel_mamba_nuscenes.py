"""Voxel Mamba, nuScenes detection.

No nuScenes settings were published.  Our choice: voxels of 0.3 x 0.3 x 0.25 m, whose 32 layers fit
the published backbone, the neck of DSVT, the head of open-mmlab/OpenPCDet's CenterPoint, but for
its weight 0.2, which is on the velocity here, and the decay rates of S4D in place of noise.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.nuscenes import *
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import VoxelMamba
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterHead, CenterLayers
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

channels = 128
# 360 x 360 x 32 voxels; x, y, z, m
space = dict(voxel_size=(0.3, 0.3, 0.25), point_cloud_range=point_cloud_range)
tasks = [
    ["car"],
    ["truck", "construction_vehicle"],
    ["bus", "trailer"],
    ["barrier"],
    ["motorcycle", "bicycle"],
    ["pedestrian", "traffic_cone"],
]

model = dict(
    type=TrainableModel,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, **space),
        encoder=dict(type=VoxelEncoder, in_channels=5, channels=(channels, channels), **space),
        # the top layer, from 2.75 m up, reaches no output
        backbone=dict(type=VoxelMamba, dropped_layers=1, init="s4d", **space),
        neck=dict(type=BevBackbone, in_channels=channels, upsample=(0.5, 1, 2)),  # stride 2
        head=dict(
            type=CenterHead,
            in_channels=384,
            classes=classes,
            tasks=tasks,
            grid=dict(type=BevGrid, stride=2, **space),
            layers=dict(type=CenterLayers, bias_before_norm=True, norm_eps=1e-5, norm_momentum=0.1),
        ),
    ),
)
optim_wrapper.update(optimizer=dict(lr=0.0025))
