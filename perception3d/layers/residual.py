"""What follows a layer, in the memory of what it made."""

import torch
from torch import Tensor

from perception3d.layers.normalization import RowBatchNorm, affine_of


def add_residual(made: Tensor, kept: Tensor) -> Tensor:
    """Return made + kept; without gradients in the memory of `made`.

    A third block of rows, fresh from the system and larger than the caches, would cost more than
    the sum.

    Args:
        made: held by nobody but the caller, who gives it up.
        kept: of the same shape; left as it is.
    """
    if torch.is_grad_enabled() or made.dtype != kept.dtype:
        return made + kept
    return made.add_(kept)


def relu_of(made: Tensor) -> Tensor:
    """Return ReLU; without gradients in the memory of `made`.

    Args:
        made: held by nobody but the caller, who gives it up.
    """
    return torch.relu(made) if torch.is_grad_enabled() else torch.relu_(made)


def normalise(made: Tensor, norm: RowBatchNorm) -> Tensor:
    """Return the norm of (R, C) rows; in evaluation without gradients in the memory of `made`.

    Args:
        made: held by nobody but the caller, who gives it up.
        norm: batch norm of C channels.
    """
    affine = affine_of(norm)
    if affine is None or made.dtype != affine[0].dtype:
        result: Tensor = norm(made)
        return result
    scale, shift = affine
    return torch.addcmul(shift, made, scale, out=made)
