"""DSVT, pillars, small enough to train on two CPU cores: for the synthetic data set."""

from mmengine.config import read_base

with read_base():
    from .._base_.nuscenes import *
    from .._base_.runtime import *
    from .._base_.schedule import *

from perception3d.engine.trainable import TrainableModel
from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage
from perception3d.models.detector import Detector
from perception3d.models.encoders import PillarEncoder
from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import CenterLayers
from perception3d.models.heads.center_decode import CenterDecoder
from perception3d.models.heads.center_head import CenterHead
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer

voxel_size = (0.45, 0.45, 8.0)  # x, y, z, m: 240 x 240 x 1 cells
channels = 64
bev_stride = 2
tasks = (  # each has its own count of objects in the loss, so that rare classes weigh enough
    ("car",),
    ("truck", "construction_vehicle", "bus", "trailer"),
    ("barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone"),
)
num_sweeps = 3  # scans beside the key frame

model = dict(
    type=TrainableModel,
    norm_momentum=0.1,
    net=dict(
        type=Detector,
        voxelizer=dict(type=Voxelizer, voxel_size=voxel_size, point_cloud_range=point_cloud_range),
        encoder=dict(
            type=PillarEncoder,
            voxel_size=voxel_size,
            point_cloud_range=point_cloud_range,
            in_channels=5,
            channels=(32, channels),
        ),
        backbone=dict(
            type=DSVT,
            grid_size=(240, 240, 1),
            stages=[dict(type=DSVTStage, window=(12, 12, 1), set_size=36, blocks=2)],
            channels=channels,
            heads=4,
            hybrid_factor=(2, 2, 1),
        ),
        neck=dict(
            type=BevBackbone,
            in_channels=channels,
            blocks=(1, 1),
            strides=(bev_stride, 2),
            channels=(64, 96),
            upsample=(1, 2),
            upsample_channels=(48, 48),
        ),
        head=dict(
            type=CenterHead,
            in_channels=96,
            classes=classes,
            tasks=tasks,
            grid=dict(
                type=BevGrid,
                voxel_size=voxel_size,
                point_cloud_range=point_cloud_range,
                stride=bev_stride,
            ),
            layers=dict(type=CenterLayers, shared_channels=32),
            decoder=dict(type=CenterDecoder, max_objects=200, score_threshold=0.05),
        ),
    ),
)

frames = dict(type=NuScenesDataset, data_root=data_root, classes=classes)
loading = dict(type=LoadPoints, num_sweeps=num_sweeps, drop_invalid=False)
train_pipeline = [  # a short schedule bears little augmentation
    loading,
    dict(type=LoadAnnotations),
    dict(type=FilterBoxes, min_points=1),
    dict(type=RandomFlip),
    dict(type=RandomRotate, angles=(-0.1, 0.1)),
    dict(type=RandomScale, factors=(0.95, 1.05)),
    dict(type=FilterRange, point_cloud_range=point_cloud_range),
]
test_pipeline = [loading, dict(type=LoadAnnotations)]
train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    dataset=dict(
        **frames, ann_file="nuscenes_infos_synthetic_train.jsonl", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    dataset=dict(
        **frames,
        ann_file="nuscenes_infos_synthetic_val.jsonl",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
optim_wrapper.update(optimizer=dict(lr=0.003))
train_cfg.update(max_epochs=5, val_interval=5)
auto_scale_lr.update(base_batch_size=1)
