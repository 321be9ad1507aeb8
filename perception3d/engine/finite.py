"""Find where NaN and infinity come from, before they reach the weights."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.engine.distributed import world_size
from perception3d.errors import UserError
from perception3d.structures import Batch

_ADVICE = "lower the learning rate, or train without --amp; the last checkpoint is untouched"


class NonFiniteError(UserError):
    """A value became NaN or infinite; the message names the first tensor in which it did."""


def check_losses(
    net: nn.Module, losses: dict[str, Tensor], total: Tensor, batch: Batch | None
) -> None:
    """Raise unless the summed loss is finite.

    On failure the forward pass is repeated without gradients, to name the first module whose
    output is not finite although its input is.

    Args:
        net: the network that gave the losses.
        losses: its loss entries.
        total: their sum.
        batch: what they were computed from, None where it is not known.

    Raises:
        NonFiniteError: names the loss, the first module and the first parameter concerned.
    """
    # One synchronisation a step: a NaN that reaches the weights costs the run.
    if bool(torch.isfinite(total)):
        return
    bad = [name for name, value in losses.items() if not bool(torch.isfinite(value).all())]
    where = [f"loss {bad[0] if bad else 'sum'} is {float(total.detach())}"]
    weight = first_non_finite(net.named_parameters())
    if weight is not None:
        where.append(f"parameter {weight} is not finite")
    if batch is not None:
        if not bool(torch.isfinite(batch.points).all()):
            where.append(f"the points of frames {', '.join(batch.tokens)} hold NaN or infinity")
        # the other processes would not take part in the exchanges of a repeated pass
        alone = world_size() == 1
        module = first_non_finite_module(net, batch) if alone else None
        if module is not None:
            where.append(f"first in the output of module {module}")
    raise NonFiniteError(f"{'; '.join(where)}: {_ADVICE}")


def check_gradients(named_parameters: Iterable[tuple[str, Tensor]], norm: Tensor) -> None:
    """Raise unless the gradient norm is finite.

    Args:
        named_parameters: parameters in the order of the network.
        norm: norm over all their gradients.

    Raises:
        NonFiniteError: names the first parameter whose gradient is not finite.
    """
    if bool(torch.isfinite(norm)):  # one synchronisation a step, as in `check_losses`
        return
    gradients = ((name, p.grad) for name, p in named_parameters if p.grad is not None)
    name = first_non_finite(gradients)
    what = f"gradient of parameter {name} is not finite" if name else "gradient norm overflows"
    raise NonFiniteError(f"{what}: {_ADVICE}")


def first_non_finite(named_tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity."""
    for name, tensor in named_tensors:
        if not bool(torch.isfinite(tensor.detach()).all()):
            return name
    return None


def first_non_finite_module(net: nn.Module, batch: Batch) -> str | None:
    """Repeat the loss without gradients; name the first module with a non-finite output.

    Modules finish innermost first, so the name is the most precise there is. The state of the
    network (running statistics) is restored.
    """
    found: list[str] = []
    state = {name: value.clone() for name, value in net.state_dict().items()}

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and any(not bool(torch.isfinite(t).all()) for t in floats(output)):
                found.append(f"{name} ({type(module).__name__})")

        return look

    hooks = [m.register_forward_hook(watch(name)) for name, m in net.named_modules() if name]
    try:
        with torch.no_grad():
            net.loss(batch)  # type: ignore[operator]  # the interface that TrainableModel asks for
    except (RuntimeError, ValueError):
        pass  # the step before the failure is what we look for
    finally:
        for hook in hooks:
            hook.remove()
        net.load_state_dict(state)
    return found[0] if found else None


def floats(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors inside a value: tensors, sequences, dicts, dataclasses."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from floats(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from floats(entry)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from floats(getattr(value, name))
