"""Plain torch twin of `perception3d.ops.selective_scan`, one step after the other."""

import torch
from torch import Tensor
from torch.nn import functional as F

from perception3d.ops.reference.sequences import rows_in_place, walks


def selective_scan(  # noqa: PLR0913  # the arguments of the operator
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    offsets: Tensor,
    *,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    order: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan sequences; see `perception3d.ops.selective_scan`."""
    dtype = u.dtype
    u, delta, B, C = (rows.to(A.dtype) for rows in (u, delta, B, C))
    delta = delta if delta_bias is None else delta + delta_bias
    delta = F.softplus(delta) if delta_softplus else delta
    visited, states = [], []
    sequences = walks(u.shape[0], offsets, order, reverse)
    for sequence in sequences:
        state = torch.zeros_like(A)
        for row in sequence.tolist():
            decay = torch.exp(delta[row, :, None] * A)
            state = decay * state + (delta[row] * u[row])[:, None] * B[row]
            visited.append(state @ C[row])
        states.append(state)
    y = rows_in_place(visited, sequences, u)
    y = y if skip is None else y + skip * u
    y = y if gate is None else y * F.silu(gate.to(A.dtype))
    y = y.to(dtype)
    if not return_state:
        return y
    return y, torch.stack(states).detach() if states else A.new_zeros((0, *A.shape))
