"""Batch normalisation of rows whose number changes from batch to batch."""

import torch.nn.functional as F
from torch import Tensor, nn


class RowBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (R, C) rows (points, voxels) that takes any R, also in training.

    Fewer than two rows have no variance.  They are normalised with the running statistics, which
    stay as they are, so that an almost empty frame neither stops a training nor spoils it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (R, C) per column."""
        if self.training and input.shape[0] < 2:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)
