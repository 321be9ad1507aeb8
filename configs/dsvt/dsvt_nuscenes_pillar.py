"""DSVT, pillars, nuScenes detection, with the CenterHead of CenterPoint.

Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage_nusences.yaml, which has
a TransFusion head; those of the head from open-mmlab/OpenPCDet's CenterPoint on nuScenes, but for
the weight 0.2, which is on the velocity here.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.nuscenes import *
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import PillarEncoder
from perception3d.models.heads import BevGrid, CenterHead, CenterLayers
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

channels = 128
space = dict(voxel_size=(0.3, 0.3, 8.0), point_cloud_range=point_cloud_range)  # x, y, z, m
stages = [dict(type=DSVTStage, window=(30, 30, 1), set_size=90, blocks=4)]
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
        encoder=dict(type=PillarEncoder, in_channels=5, channels=(channels, channels), **space),
        backbone=dict(type=DSVT, grid_size=(360, 360, 1), stages=stages, channels=channels),
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
