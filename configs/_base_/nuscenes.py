"""nuScenes detection: ten classes, ten sweeps, the augmentation of the published recipes.

A relative data_root is relative to the folder the tool is started in.
Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage_nusences.yaml.
"""

from perception3d.data.class_balanced import ClassBalancedDataset
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.metrics.nuscenes import NuScenesMetric
from perception3d.transforms import (
    FilterBoxes,
    FilterRange,
    LoadAnnotations,
    LoadPoints,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    ShufflePoints,
)

data_root = "data/nuscenes"
point_cloud_range = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)  # x, y, z low and high, m
classes = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)

train_pipeline = [
    dict(type=LoadPoints, num_sweeps=9, random_sweeps=True, drop_invalid=False),
    dict(type=LoadAnnotations),
    dict(type=FilterBoxes, min_points=1),
    dict(type=RandomFlip),
    dict(type=RandomRotate),  # +-pi/4
    dict(type=RandomScale, factors=(0.9, 1.1)),
    dict(type=RandomTranslate, std=(0.5, 0.5, 0.5)),
    dict(type=FilterRange, point_cloud_range=point_cloud_range),
    dict(type=ShufflePoints),
]
test_pipeline = [
    dict(type=LoadPoints, num_sweeps=9, drop_invalid=False),
    dict(type=LoadAnnotations),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        type=ClassBalancedDataset,
        dataset=dict(
            type=NuScenesDataset,
            data_root=data_root,
            ann_file="nuscenes_infos_train.jsonl",
            classes=classes,
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        type=NuScenesDataset,
        data_root=data_root,
        ann_file="nuscenes_infos_val.jsonl",
        classes=classes,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=NuScenesMetric)
test_evaluator = val_evaluator
