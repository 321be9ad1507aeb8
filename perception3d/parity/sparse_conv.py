"""Replays sparse convolutions."""

import torch

from perception3d.ops import depthwise_conv, subm_index
from perception3d.parity.case import Case


def replay_depthwise_conv(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind depthwise_conv: one kernel on all channels, and its gradients."""
    neighbours = subm_index(
        case.tensor("in.coords", device).int(),
        case.config["batch_size"],
        case.config["spatial_shape_zyx"],
        case.config["kernel_size_zyx"],
    )
    features = case.tensor("in.features", device).requires_grad_()
    weight = case.tensor("param.weight", device).requires_grad_()
    result = depthwise_conv(features, [(neighbours, weight, 0)])
    loss = (result * case.tensor("in.grad_out", device)).sum()
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
    return {
        "out.features": result,
        "grad.in.features": features.grad,
        "grad.param.weight": weight.grad,
    }
