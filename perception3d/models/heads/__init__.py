"""From a BEV map to boxes."""

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import CenterHeadOutput, CenterLayers, TaskOutput
from perception3d.models.heads.center_decode import CenterDecoder
from perception3d.models.heads.center_head import CenterHead
from perception3d.models.heads.center_loss import CenterLoss
from perception3d.models.heads.center_targets import GaussianTargets, TaskTargets
from perception3d.models.heads.class_tasks import ClassTasks
from perception3d.models.heads.transfusion_branches import TransFusionLayers, TransFusionOutput
from perception3d.models.heads.transfusion_code import QueryCode
from perception3d.models.heads.transfusion_decode import TransFusionDecoder
from perception3d.models.heads.transfusion_head import TransFusionHead
from perception3d.models.heads.transfusion_loss import TransFusionLoss
from perception3d.models.heads.transfusion_queries import QueryRule
from perception3d.models.heads.transfusion_targets import HungarianTargets, QueryTargets

__all__ = [
    "BevGrid",
    "CenterDecoder",
    "CenterHead",
    "CenterHeadOutput",
    "CenterLayers",
    "CenterLoss",
    "ClassTasks",
    "GaussianTargets",
    "HungarianTargets",
    "QueryCode",
    "QueryRule",
    "QueryTargets",
    "TaskOutput",
    "TaskTargets",
    "TransFusionDecoder",
    "TransFusionHead",
    "TransFusionLayers",
    "TransFusionLoss",
    "TransFusionOutput",
]
