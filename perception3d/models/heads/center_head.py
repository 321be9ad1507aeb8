"""CenterHead: objects as points of a BEV heat map (CenterPoint, CVPR 2021)."""

from collections.abc import Sequence

from torch import Tensor, nn

from perception3d.checks import FLOATS, check_tensor
from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import (
    CenterBranches,
    CenterHeadOutput,
    CenterLayers,
)
from perception3d.models.heads.center_decode import CenterDecoder
from perception3d.models.heads.center_loss import CenterLoss
from perception3d.models.heads.center_targets import GaussianTargets, TaskTargets
from perception3d.models.heads.class_tasks import ClassTasks
from perception3d.structures import Detections, Targets


class CenterHead(nn.Module):
    """A heat map per class, and regression maps per task.

    Args:
        in_channels: channels of the BEV map.
        classes: class names in label order.
        grid: cells of the BEV map.
        tasks: class names of each task; None: one task of all classes.
        layers: shape of the convolutions.
        targets: how targets are drawn.
        loss: weights of the losses.
        decoder: how predictions become detections.

    Raises:
        ValueError: tasks that do not share out the classes, or settings that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        grid: BevGrid,
        tasks: Sequence[Sequence[str]] | None = None,
        layers: CenterLayers | None = None,
        targets: GaussianTargets | None = None,
        loss: CenterLoss | None = None,
        decoder: CenterDecoder | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.grid = grid
        self.tasks = ClassTasks(classes, [classes] if tasks is None else tasks)
        self.layers = layers or CenterLayers()
        self.target_maker = targets or GaussianTargets()
        self.loss_maker = loss or CenterLoss()
        self.decoder = decoder or CenterDecoder()
        self.loss_maker.weights_of_codes(10 if self.layers.velocity else 8)
        self.decoder.check_classes(self.tasks.num_classes)
        self.shared = self.layers.block(in_channels)
        self.branches = nn.ModuleList(
            CenterBranches(len(names), self.layers) for names in self.tasks.tasks
        )

    def forward(self, bev: Tensor) -> CenterHeadOutput:
        """Predict from a map (B, in_channels, H, W).

        Raises:
            ValueError: another width, or a map that is not that of the grid.
        """
        check_tensor("CenterHead", "bev", bev, ("B", self.in_channels, "H", "W"), FLOATS)
        self.grid.check_map("CenterHead", bev)
        shared = self.shared(bev)
        return CenterHeadOutput(tuple(task(shared) for task in self.branches))

    def loss(self, output: CenterHeadOutput, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Return the losses summed over tasks: "loss_heatmap", "loss_box"(, "loss_iou",
        "loss_diou"), scalars.

        Raises:
            ValueError: not one Targets per frame.
        """
        total: dict[str, Tensor] = {}
        for losses in self.task_losses(output, self.assign(output, targets)):
            for name, value in losses.items():
                key = f"loss_{name}"
                total[key] = total[key] + value if key in total else value
        return total

    def assign(self, output: CenterHeadOutput, targets: Sequence[Targets]) -> list[TaskTargets]:
        """Return the targets of each task for the frames of an output."""
        if len(targets) != output.batch_size:
            raise ValueError(
                f"CenterHead: targets must have one entry per frame ({output.batch_size}), "
                f"got {len(targets)}"
            )
        return self.target_maker.assign(
            targets, self.tasks, self.grid, velocity=self.layers.velocity
        )

    def task_losses(
        self, output: CenterHeadOutput, targets: Sequence[TaskTargets]
    ) -> list[dict[str, Tensor]]:
        """Return the weighted losses of each task, see CenterLoss."""
        return [
            self.loss_maker.compute(task, wanted, self.grid)
            for task, wanted in zip(output.tasks, targets, strict=True)
        ]

    def decode(self, output: CenterHeadOutput) -> list[Detections]:
        """Return the detections of every frame, task after task, by descending score in a task."""
        return self.decoder.decode(output, self.tasks, self.grid)
