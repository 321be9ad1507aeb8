"""Plain torch twin of `perception3d.ops.mamba_mixer`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.ops.mamba_mixer import MambaParameters, NormParameters
from perception3d.ops.reference.causal_conv1d import causal_conv1d
from perception3d.ops.reference.selective_scan import selective_scan


def mamba_mixer(
    rows: Tensor,
    offsets: Tensor,
    mixer: MambaParameters,
    *,
    added: Tensor | None = None,
    order: Tensor | None = None,
    reverse: bool = False,
    after: NormParameters | None = None,
) -> Tensor:
    """Normalise, project, convolve, scan, gate, project; see `perception3d.ops.mamba_mixer`."""
    rank, states, inner = mixer.step_proj.shape[1], mixer.A.shape[1], mixer.A.shape[0]
    x = rows if added is None else rows + added
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + mixer.epsilon) * mixer.norm
    projected = x @ mixer.in_proj.t()
    u = causal_conv1d(
        projected[:, :inner],
        mixer.conv_weight,
        mixer.conv_bias,
        offsets,
        activation="silu",
        order=order,
        reverse=reverse,
    )
    low = u @ mixer.x_proj.t()
    y = selective_scan(
        u,
        F.softplus(low[:, :rank] @ mixer.step_proj.t() + mixer.step_bias),
        mixer.A,
        low[:, rank : rank + states],
        low[:, rank + states :],
        offsets,
        skip=mixer.skip,
        gate=projected[:, inner:],
        order=order,
        reverse=reverse,
    )
    assert isinstance(y, Tensor)
    result = y @ mixer.out_proj.t()
    if after is None:
        return result
    centred = result - result.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return centred * torch.rsqrt(variance + after.epsilon) * after.weight + after.bias
