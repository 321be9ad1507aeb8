"""DSVT, pillars, nuScenes detection.

Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage_nusences.yaml, and where
that is silent from its pcdet/models/dense_heads/transfusion_head.py.  GT sampling is not included.
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
from perception3d.models.heads import (
    BevGrid,
    TransFusionDecoder,
    TransFusionHead,
    TransFusionLayers,
    TransFusionLoss,
)
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

channels = 128
space = dict(voxel_size=(0.3, 0.3, 8.0), point_cloud_range=point_cloud_range)  # x, y, z, m
stages = [dict(type=DSVTStage, window=(30, 30, 1), set_size=90, blocks=4)]
layers = dict(dropout=0.0, iou=True, bias_before_norm=True, transposed=True, height="top")
layers.update(local_radius=20, local_border="wrap")
nms = dict(pedestrian=0.175, traffic_cone=0.175)

model = dict(
    type=TrainableModel,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, **space),
        encoder=dict(type=PillarEncoder, in_channels=5, channels=(channels, channels), **space),
        backbone=dict(type=DSVT, grid_size=(360, 360, 1), stages=stages, channels=channels),
        neck=dict(type=BevBackbone, in_channels=channels, upsample=(0.5, 1, 2)),  # stride 2
        head=dict(
            type=TransFusionHead,
            in_channels=384,
            classes=classes,
            grid=dict(type=BevGrid, stride=2, **space),
            layers=dict(type=TransFusionLayers, **layers),
            loss=dict(type=TransFusionLoss, iou_of_assignment=True),
            decoder=dict(type=TransFusionDecoder, iou_rectifier=0.5, iou_threshold=nms),
        ),
    ),
)
