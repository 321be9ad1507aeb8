"""How far the predictions of a TransFusionHead are from its targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.models.heads.transfusion_branches import TransFusionOutput
from perception3d.models.heads.transfusion_code import QueryCode
from perception3d.models.heads.transfusion_targets import QueryTargets
from perception3d.models.losses import (
    aligned_diou_3d,
    full_precision,
    gaussian_focal_loss,
    masked_l1_loss,
    masked_mean,
    sigmoid_focal_loss,
)
from perception3d.ops.box_overlap import box_iou

_CODES = 10


@dataclass(frozen=True)
class TransFusionLoss:
    """Weights of the losses of a TransFusionHead, and their computation.

    Attributes:
        heatmap_weight: of the Gaussian focal loss of the heat map.
        class_weight: of the focal loss of the classes of all queries.
        box_weight: of the L1 loss of the codes.
        code_weights: of the entries of a code, see QueryCode.
        iou_weight: of the L1 loss of the IoU branch, where there is one.
        iou_of_assignment: the IoU branch learns the IoU that the assignment sees (DSVT), which
            takes z of a box for its bottom, instead of the IoU there is.
        diou_weight: of 1 - DIoU of the decoded boxes, headings ignored (ScatterFormer: 0.5); None:
            no such loss.

    Raises:
        ValueError: not 10 code_weights.
    """

    heatmap_weight: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 0.25
    code_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    iou_weight: float = 0.5
    iou_of_assignment: bool = False
    diou_weight: float | None = None

    def __post_init__(self) -> None:
        if len(self.code_weights) != _CODES:
            raise ValueError(
                f"TransFusionLoss: code_weights must have {_CODES} entries, "
                f"got {len(self.code_weights)}"
            )

    def compute(
        self, output: TransFusionOutput, targets: QueryTargets, code: QueryCode
    ) -> dict[str, Tensor]:
        """Return the weighted losses.

        Returns:
            Scalars "heatmap", "class" and "box", "iou" with an IoU branch, "diou" if asked for;
            finite and connected to every branch even without a single box.
        """
        mask = targets.mask
        codes = full_precision(output.codes)
        weights = codes.new_tensor(list(self.code_weights))
        num_classes = output.heatmap.shape[1]
        wanted = F.one_hot(targets.labels, num_classes + 1)[..., :num_classes].transpose(1, 2)
        errors = masked_l1_loss(codes, targets.codes, mask)
        losses = {
            "heatmap": gaussian_focal_loss(output.dense_heatmap, targets.heatmap)
            * self.heatmap_weight,
            "class": sigmoid_focal_loss(output.heatmap, wanted, mask.sum()) * self.class_weight,
            "box": (errors * weights).sum() * self.box_weight,
        }
        if output.iou is None and self.diou_weight is None:
            return losses
        boxes = code.decode(codes)
        # Queries without a box get one, so that nothing is divided by zero before the mask.
        unit = boxes.new_tensor([0, 0, 0, 1, 1, 1, 0])
        truth = torch.where(mask[..., None], targets.boxes[..., :7].to(boxes.dtype), unit)
        # Only pairs that overlap count, and only they are counted.
        if output.iou is not None:
            reached = targets.overlaps
            if not self.iou_of_assignment:
                reached = box_iou(
                    boxes.detach().flatten(0, 1), truth.flatten(0, 1), kind="3d", aligned=True
                ).view(mask.shape)
            error = (full_precision(output.iou)[:, 0] - (2 * reached - 1)).abs()
            losses["iou"] = masked_mean(error, mask & (reached > 0)) * self.iou_weight
        if self.diou_weight is not None:
            diou = aligned_diou_3d(boxes, truth)
            losses["diou"] = masked_mean(1 - diou, mask & (diou > 0)) * self.diou_weight
        return losses
