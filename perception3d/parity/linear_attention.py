"""Replays scattered linear attention."""

import torch
from torch import Tensor

from perception3d.ops import scattered_linear_attention, segment_reduce
from perception3d.parity.case import Case

# Next to this the normaliser vanishes, so that the operator gives its numerator alone.
_LARGE = 1e20
# Positive for the relu, nothing beside a number of float32.
_TINY = 1e-30


def replay_linear_attention(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind linear_attention: the operator, its gradients, and the sums behind it."""
    query, key, value = (case.tensor(f"in.{name}", device).requires_grad_() for name in "qkv")
    grad = case.tensor("in.grad_out", device)
    counts = case.tensor("in.counts", device).long()
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def attend(q: Tensor, k: Tensor, v: Tensor, epsilon: float) -> Tensor:
        return scattered_linear_attention(q, k, v, offsets, epsilon=epsilon)

    result = attend(query, key, value, case.config["eps"])
    grads = torch.autograd.grad(result, (query, key, value), grad)
    # Gradients for what comes out of the relu, zeros included.
    phi_q, phi_k = (torch.where(x > 0, x, _TINY).detach().requires_grad_() for x in (query, key))
    again = attend(phi_q, phi_k, value, case.config["eps"])
    phi_grads = torch.autograd.grad(again, (phi_q, phi_k), grad)
    ones = torch.ones_like(value[..., :1])
    with torch.no_grad():
        normaliser = attend(query, key, ones, _LARGE) * _LARGE
        order = torch.arange(key.shape[0], device=device)
        outer = key.relu()[..., None] * value[:, :, None]
        sums = [
            segment_reduce(rows.flatten(1), order, offsets).view(-1, *rows.shape[1:])
            for rows in (key.relu(), outer)
        ]
    return {
        "out.y": result,
        "out.z": normaliser,
        "out.s": sums[0],
        "out.kv": sums[1],
        "grad.in.q": grads[0],
        "grad.in.k": grads[1],
        "grad.in.v": grads[2],
        "grad.in.phi_q": phi_grads[0],
        "grad.in.phi_k": phi_grads[1],
    }
