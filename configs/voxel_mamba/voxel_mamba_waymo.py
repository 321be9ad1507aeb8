"""Voxel Mamba, Waymo.  For released weights and own loaders: no Waymo data set is included.

Numbers from gwenzhang/Voxel-Mamba: tools/cfgs/voxel_mamba_models/voxel_mamba_waymo.yaml.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import VoxelMamba
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterDecoder, CenterHead, CenterLayers, CenterLoss
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

classes = ("Vehicle", "Pedestrian", "Cyclist")
channels = 128
space = dict(  # 468 x 468 x 32 voxels; x, y, z, m
    voxel_size=(0.32, 0.32, 0.1875), point_cloud_range=(-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
)
decoder = dict(
    type=CenterDecoder,
    center_range=(-80, -80, -10, 80, 80, 10),
    iou_rectifier=(0.68, 0.71, 0.65),
    iou_threshold=(0.75, 0.6, 0.55),
    pre_max=4096,
    post_max=500,
)

model = dict(
    type=TrainableModel,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, **space),
        # x, y, z, tanh of intensity, tanh of elongation
        encoder=dict(type=VoxelEncoder, in_channels=5, channels=(channels, channels), **space),
        # as published, what lies above z = 3.8125 m reaches no output
        backbone=dict(type=VoxelMamba, dropped_layers=1, **space),
        neck=dict(type=BevBackbone, in_channels=channels),
        head=dict(
            type=CenterHead,
            in_channels=384,
            classes=classes,
            grid=dict(type=BevGrid, **space),
            layers=dict(type=CenterLayers, velocity=False, iou=True),
            loss=dict(type=CenterLoss, box_weight=2.0, diou=True),
            decoder=decoder,
        ),
    ),
)
optim_wrapper.update(optimizer=dict(lr=0.0025), max_norm=3.0, official_decay=True)
param_scheduler.update(warmup=0.1, div=100.0)
train_cfg.update(max_epochs=24)
auto_scale_lr.update(base_batch_size=24)
