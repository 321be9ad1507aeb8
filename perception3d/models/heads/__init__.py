"""From a BEV map to boxes."""

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import CenterHeadOutput, CenterLayers, TaskOutput
from perception3d.models.heads.center_decode import CenterDecoder
from perception3d.models.heads.center_head import CenterHead
from perception3d.models.heads.center_loss import CenterLoss
from perception3d.models.heads.center_targets import GaussianTargets, TaskTargets
from perception3d.models.heads.class_tasks import ClassTasks

__all__ = [
    "BevGrid",
    "CenterDecoder",
    "CenterHead",
    "CenterHeadOutput",
    "CenterLayers",
    "CenterLoss",
    "ClassTasks",
    "GaussianTargets",
    "TaskOutput",
    "TaskTargets",
]
