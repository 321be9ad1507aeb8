"""Runs one module of a case in its modes and collects results, gradients and statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from perception3d.parity.case import Case


@dataclass(frozen=True)
class Outputs:
    """What a module gives in one mode.

    Attributes:
        main: the result whose sum weighted with `in.grad_out` is differentiated.
        named: results by name without "out." and mode, `main` among them.
        common: results that do not depend on the mode, such as coordinates.
    """

    main: Tensor
    named: Mapping[str, Tensor]
    common: Mapping[str, Tensor] = field(default_factory=dict)


def replay_module(
    case: Case,
    device: torch.device,
    *,
    build: Callable[[], tuple[nn.Module, Mapping[str, str]]],
    forward: Callable[[nn.Module, Mapping[str, Tensor]], Outputs],
    inputs: tuple[str, ...],
) -> dict[str, object]:
    """Run a module once per mode of the case, each time fresh from the recorded weights.

    Args:
        case: the case; without modes the module runs once, in eval mode, and keys carry no mode.
        device: where it runs.
        build: returns the loaded module (CPU) and {official parameter name: ours}.
        forward: runs the module on {input name without "in.": tensor}.
        inputs: names of the inputs, each of which gets a gradient.

    Returns:
        `out.*` and, where the case has `in.grad_out`, `grad.*` of every input and parameter.
    """
    results: dict[str, object] = {}
    for mode in case.modes or ("",):
        middle = f"{mode}." if mode else ""
        module, names = build()
        module = module.to(device).train(mode == "train")
        leaves = {name: case.tensor(f"in.{name}", device).requires_grad_() for name in inputs}
        outputs = forward(module, leaves)
        results.update({f"out.{middle}{name}": value for name, value in outputs.named.items()})
        results.update({f"out.{name}": value for name, value in outputs.common.items()})
        if mode == "train":
            results.update(_statistics(module, names))
        if "in.grad_out" in case.arrays:
            loss = (outputs.main * case.tensor("in.grad_out", device)).sum()
            results[f"out.{middle}loss"] = loss.reshape(1)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
            results.update(_gradients(f"grad.{middle}", module, names, leaves))
    return results


def _statistics(module: nn.Module, names: Mapping[str, str]) -> dict[str, object]:
    """Return running statistics by official name."""
    buffers = dict(module.named_buffers())
    return {
        f"out.train.buffer.{official}": buffers[ours].detach().clone()
        for official, ours in names.items()
        if ours in buffers
    }


def _gradients(
    prefix: str, module: nn.Module, names: Mapping[str, str], leaves: Mapping[str, Tensor]
) -> dict[str, object]:
    """Return gradients of inputs and of parameters by official name; none is zero."""
    parameters = dict(module.named_parameters())
    found: dict[str, object] = {
        f"{prefix}in.{name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }
    for official, ours in names.items():
        if ours in parameters:
            weight = parameters[ours]
            grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            found[f"{prefix}param.{official}"] = grad
    return found


def set_norms(module: nn.Module, *, layer_eps: float | None = None, **batch: float) -> None:
    """Give norms the eps, and BatchNorm the momentum, that a case states.

    Args:
        module: searched with all its children.
        layer_eps: eps of every LayerNorm.
        batch: "eps" and "momentum" of every BatchNorm.
    """
    for child in module.modules():
        if isinstance(child, nn.LayerNorm) and layer_eps is not None:
            child.eps = layer_eps
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eps = batch.get("eps", child.eps)
            child.momentum = batch.get("momentum", child.momentum)
