"""How far the predictions of a CenterHead are from its targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import TaskOutput, gather_cells
from perception3d.models.heads.center_code import decode_codes
from perception3d.models.heads.center_targets import TaskTargets
from perception3d.models.losses import (
    aligned_diou_3d,
    full_precision,
    gaussian_focal_loss,
    masked_l1_loss,
    masked_mean,
)
from perception3d.ops.box_overlap import box_iou

_BOX_CODES = 8
_VELOCITY_WEIGHT = 0.2


@dataclass(frozen=True)
class CenterLoss:
    """Weights of the losses of a CenterHead, and their computation for one task.

    Attributes:
        heatmap_weight: of the focal loss.
        box_weight: of the L1 loss of the codes and of the DIoU loss (0.25 nuScenes, 2 Waymo).
        code_weights: of the entries of a code [x, y, z, log dx, log dy, log dz, cos, sin(, vx,
            vy)]; None: 1, and 0.2 for the velocity.  The released nuScenes checkpoints of
            OpenPCDet were trained with 0.2 on cos and sin instead.
        iou_weight: of the L1 loss of the IoU branch, where there is one.
        diou: add 1 - DIoU of the decoded boxes, headings ignored.

    Raises:
        ValueError: code_weights of another length than 8 or 10.
    """

    heatmap_weight: float = 1.0
    box_weight: float = 0.25
    code_weights: Sequence[float] | None = None
    iou_weight: float = 1.0
    diou: bool = False

    def __post_init__(self) -> None:
        if self.code_weights is not None and len(self.code_weights) not in (8, 10):
            raise ValueError(
                "CenterLoss: code_weights must have 8 entries, or 10 with velocity, "
                f"got {len(self.code_weights)}"
            )

    def compute(self, output: TaskOutput, targets: TaskTargets, grid: BevGrid) -> dict[str, Tensor]:
        """Return the weighted losses of one task.

        Returns:
            Scalars "heatmap" and "box", "iou" with an IoU branch, "diou" if asked for; finite and
            connected to every branch even without a single box.
        """
        losses = {"heatmap": gaussian_focal_loss(output.hm, targets.heatmap) * self.heatmap_weight}
        codes = full_precision(gather_cells(output.codes, targets.cells))
        weights = codes.new_tensor(self.weights_of_codes(codes.shape[2]))
        errors = masked_l1_loss(codes, targets.codes, targets.mask)
        losses["box"] = (errors * weights).sum() * self.box_weight
        if output.iou is None and not self.diou:
            return losses
        boxes = decode_codes(codes, targets.cells, grid)
        # Slots without a box get one, so that nothing is divided by zero before the mask.
        unit = boxes.new_tensor([0, 0, 0, 1, 1, 1, 0])
        truth = torch.where(targets.mask[..., None], targets.boxes[..., :7].to(boxes.dtype), unit)
        if output.iou is not None:
            found = full_precision(gather_cells([output.iou], targets.cells)).squeeze(2)
            reached = box_iou(
                boxes.detach().flatten(0, 1), truth.flatten(0, 1), kind="3d", aligned=True
            ).view(found.shape)
            losses["iou"] = masked_mean((found - (2 * reached - 1)).abs(), targets.mask)
            losses["iou"] = losses["iou"] * self.iou_weight
        if self.diou:
            distance = 1 - aligned_diou_3d(boxes, truth)
            losses["diou"] = masked_mean(distance, targets.mask) * self.box_weight
        return losses

    def weights_of_codes(self, width: int) -> list[float]:
        """Return one weight per entry of a code of the given width (8 or 10).

        Raises:
            ValueError: code_weights of another length.
        """
        weights = self.code_weights
        if weights is None:
            weights = [1.0] * _BOX_CODES + [_VELOCITY_WEIGHT] * (width - _BOX_CODES)
        if len(weights) != width:
            raise ValueError(
                f"CenterLoss: code_weights must have {width} entries "
                f"({'with' if width > _BOX_CODES else 'without'} velocity), got {len(weights)}"
            )
        return [float(weight) for weight in weights]
