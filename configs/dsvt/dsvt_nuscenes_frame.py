"""The demo's DSVT on one real nuScenes frame: it must learn the frame by heart.

Info file: tools/create_data.py nuscenes --root-path ROOT --version v1.0-mini --split mini_train
--velocities ROOT/boxes_lidar.npz.  The frame has no neighbours, hence one scan and no validation
on the tables: their velocities would need neighbours.
"""

from mmengine.config import read_base

with read_base():
    from .dsvt_demo import *

frame = dict(
    type=NuScenesDataset,
    data_root=data_root,
    ann_file="nuscenes_infos_mini_train.jsonl",
    classes=classes,
    pipeline=[
        dict(type=LoadPoints, num_sweeps=0, drop_invalid=False),
        dict(type=LoadAnnotations),
        dict(type=FilterBoxes, min_points=1),
        dict(type=FilterRange, point_cloud_range=point_cloud_range),
    ],
)
train_dataloader = dict(batch_size=1, dataset=frame)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type=NuScenesDataset,
        data_root=data_root,
        ann_file="nuscenes_infos_mini_train.jsonl",
        classes=classes,
        pipeline=[
            dict(type=LoadPoints, num_sweeps=0, drop_invalid=False),
            dict(type=LoadAnnotations),
        ],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=NuScenesMetric, ground_truth="infos")
test_evaluator = val_evaluator
# What is known by heart scores high; one false box below the last true one would cost precision.
model["net"]["head"]["decoder"].update(score_threshold=0.3)
train_cfg.update(max_epochs=400, val_interval=100)
checkpoint.update(interval=50)
