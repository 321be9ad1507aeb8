"""ScatterFormer, nuScenes detection.

Numbers from skyhehe123/ScatterFormer: tools/cfgs/nuscenes_models/scatterformer.yaml, and where that
is silent from its pcdet/models/dense_heads/transfusion_head.py.  GT sampling is not included.
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
from perception3d.models.heads import (
    BevGrid,
    TransFusionDecoder,
    TransFusionHead,
    TransFusionLayers,
    TransFusionLoss,
)
from perception3d.models.necks.cascade import CascadeBackbone
from perception3d.models.voxelizer import Voxelizer

channels = 128
space = dict(voxel_size=(0.3, 0.3, 0.2), point_cloud_range=point_cloud_range)  # x, y, z, m
layers = dict(iou=True, bias_before_norm=True, local_radius=20)
nms = dict(pedestrian=0.175, traffic_cone=0.175)

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
            type=TransFusionHead,
            in_channels=channels,
            classes=classes,
            grid=dict(type=BevGrid, stride=2, **space),
            layers=dict(type=TransFusionLayers, **layers),
            loss=dict(type=TransFusionLoss, diou_weight=0.5),
            decoder=dict(type=TransFusionDecoder, iou_rectifier=0.5, iou_threshold=nms),
        ),
    ),
)
optim_wrapper.update(optimizer=dict(lr=0.006, weight_decay=0.03), max_norm=10.0)
