"""DSVT, voxels, Waymo.  For released weights and own loaders: no Waymo data set is included.

Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_3D_1f_onestage.yaml.
"""

from mmengine.config import read_base

with read_base():
    from .dsvt_waymo_pillar import *

fine = dict(voxel_size=(0.32, 0.32, 0.1875))  # 32 voxels in z
model["net"]["voxelizer"].update(fine)
model["net"]["encoder"].update(fine)
model["net"]["backbone"].update(
    grid_size=(468, 468, 32),
    stages=[
        dict(type=DSVTStage, window=(12, 12, 32), set_size=48, pool_stride=(1, 1, 4)),
        dict(type=DSVTStage, window=(12, 12, 8), set_size=48, pool_stride=(1, 1, 4)),
        dict(type=DSVTStage, window=(12, 12, 2), set_size=48, pool_stride=(1, 1, 2)),
        dict(type=DSVTStage, window=(12, 12, 1), set_size=48),
    ],
)
