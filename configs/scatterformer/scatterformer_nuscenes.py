"""ScatterFormer, nuScenes detection, with the CenterHead of CenterPoint.

Numbers from skyhehe123/ScatterFormer: tools/cfgs/nuscenes_models/scatterformer.yaml, which has a
TransFusion head; those of the head as in dsvt_nuscenes_pillar.py.  GT sampling is not included.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.nuscenes import *
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import ScatterFormer
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterHead, CenterLayers
from perception3d.models.necks.cascade import CascadeBackbone
from perception3d.models.voxelizer import Voxelizer

channels = 128
space = dict(voxel_size=(0.3, 0.3, 0.2), point_cloud_range=point_cloud_range)  # x, y, z, m
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
        encoder=dict(type=VoxelEncoder, in_channels=5, channels=(64, 64), **space),
        backbone=dict(
            type=ScatterFormer,
            grid_size=(360, 360, 40),
            in_channels=64,
            channels=channels,
            window=20,
        ),
        neck=dict(type=CascadeBackbone, in_channels=channels, channels=channels),
        head=dict(
            type=CenterHead,
            in_channels=channels,
            classes=classes,
            tasks=tasks,
            grid=dict(type=BevGrid, stride=2, **space),
            layers=dict(type=CenterLayers, bias_before_norm=True, norm_eps=1e-5, norm_momentum=0.1),
        ),
    ),
)
optim_wrapper.update(optimizer=dict(lr=0.006, weight_decay=0.03), max_norm=10.0)
