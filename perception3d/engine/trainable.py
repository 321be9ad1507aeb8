"""The only module that knows mmengine's BaseModel."""

from collections import OrderedDict
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from perception3d.engine.check_data import check_range
from perception3d.engine.finite import check_losses
from perception3d.structures import Batch


class TrainableModel(BaseModel):  # type: ignore[misc]  # mmengine ships no types
    """A plain network behind mmengine's training interface.

    Args:
        net: has `loss(batch) -> dict of scalars`, `predict(batch) -> list[Detections]` (one per
            frame) and `forward(batch)`; see `perception3d.models.detector.Detector`.
        finite_check: stop at the first loss that is NaN or infinite (one host-device
            synchronisation a step).
        norm_momentum: momentum of all batch norms; None leaves them. With the published 0.01 the
            running statistics lag hundreds of steps behind: short trainings need more.
        allow_empty_frames: go on with frames that have no point in the range of
            `net.voxelizer`; otherwise they end the run.

    Raises:
        ValueError: norm_momentum out of range.
    """

    net: Any  # an nn.Module; its loss and predict are unknown to torch's types

    def __init__(
        self,
        net: nn.Module,
        finite_check: bool = True,
        norm_momentum: float | None = None,
        allow_empty_frames: bool = False,
    ) -> None:
        if norm_momentum is not None and not 0.0 < norm_momentum <= 1.0:
            raise ValueError(f"norm_momentum must lie in (0, 1], got {norm_momentum}")
        super().__init__()
        self.net = net
        self.finite_check = finite_check
        self.allow_empty_frames = allow_empty_frames
        self._last_batch: Batch | None = None
        for module in net.modules():
            if norm_momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = norm_momentum

    def forward(self, batch: Batch, mode: str = "tensor") -> Any:
        """Run the network on a batch; it is moved to the network's device first.

        Args:
            batch: frames, on any device.
            mode: "loss", "predict" or "tensor".

        Raises:
            UserError: a frame without a point in the range.

        Returns:
            "loss": dict of scalar tensors; entries whose name contains "loss" are summed.
            "predict": per frame {"token": str, "detections": Detections in the LiDAR frame of
            the batch, "lidar_to_global": (4, 4) float64, "augmentation": (4, 4) float64}, on the
            CPU.
            "tensor": what the network's forward returns.
        """
        limits = getattr(getattr(self.net, "voxelizer", None), "point_cloud_range", None)
        if limits is not None and not self.allow_empty_frames:
            check_range(
                batch.points,
                batch.frame_of_point,
                batch.tokens,
                limits,
                advice=", or set model.allow_empty_frames=True to go on with such frames",
            )
        batch = batch.to(self.device)
        if mode == "loss":
            self._last_batch = batch if self.finite_check else None
            return self.net.loss(batch)
        if mode == "predict":
            return [
                {
                    "token": token,
                    "detections": detections.to("cpu"),
                    "lidar_to_global": batch.lidar_to_global[frame].cpu(),
                    "augmentation": batch.augmentation[frame].cpu(),
                }
                for frame, (token, detections) in enumerate(
                    zip(batch.tokens, self.net.predict(batch), strict=True)
                )
            ]
        if mode == "tensor":
            return self.net(batch)
        raise ValueError(
            f"TrainableModel: mode must be 'loss', 'predict' or 'tensor', got {mode!r}"
        )

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return torch.device(next(self.parameters()).device)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, "OrderedDict[str, Tensor]"]:
        """Sum the losses.

        Returns:
            The sum, and all entries (detached) with the sum first, under "loss".

        Raises:
            NonFiniteError: a loss is NaN or infinite.
        """
        total, entries = super().parse_losses(losses)
        if self.finite_check:
            check_losses(self.net, losses, total, self._last_batch)
            self._last_batch = None
        return total, OrderedDict((key, value.detach()) for key, value in entries.items())
