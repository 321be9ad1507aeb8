"""DSVT, pillars, Waymo.  For released weights and own loaders: no Waymo data set is included.

Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage.yaml.  The NMS turns
footprints, as for the published figures; with footprint_turn=0 use thresholds (0.75, 0.6, 0.55).
"""

from mmengine.config import read_base

with read_base():
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterDecoder, CenterHead, CenterLayers, CenterLoss
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

classes = ("Vehicle", "Pedestrian", "Cyclist")
channels = 192
space = dict(
    voxel_size=(0.32, 0.32, 6.0), point_cloud_range=(-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
)
stages = [dict(type=DSVTStage, window=(12, 12, 1), set_size=36, blocks=4)]
decoder = dict(
    type=CenterDecoder,
    center_range=(-80, -80, -10, 80, 80, 10),
    iou_rectifier=(0.68, 0.71, 0.65),
    iou_threshold=(0.7, 0.6, 0.55),
    pre_max=4096,
    post_max=500,
    footprint_turn=-1.5707963267948966,  # -pi / 2
)

model = dict(
    type=TrainableModel,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, **space),
        # x, y, z, tanh of intensity, tanh of elongation
        encoder=dict(type=VoxelEncoder, in_channels=5, channels=(channels, channels), **space),
        backbone=dict(type=DSVT, grid_size=(468, 468, 1), stages=stages, hybrid_factor=(2, 2, 1)),
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
optim_wrapper.update(optimizer=dict(lr=0.003), max_norm=10.0)
param_scheduler.update(warmup=0.1, div=100.0)
train_cfg.update(max_epochs=24)
auto_scale_lr.update(base_batch_size=24)
