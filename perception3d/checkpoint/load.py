"""Loads official weights into our modules, strictly and with an account of every tensor."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from perception3d.checkpoint.names import find_rule, official_prefix, our_prefix
from perception3d.errors import UserError

# Where known training frameworks keep the weights in their files.
_WEIGHT_KEYS = ("model_state", "state_dict", "model")
_LISTED = 5
# BatchNorm's step counter: no part of the function, and some files are without it.
_COUNTER = ".num_batches_tracked"


class CheckpointError(UserError):
    """A file is no checkpoint, or its tensors do not fit the model."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Attributes:
        matched: (official name, our name), loaded.
        missing: our names that the official weights do not fill (step counters of BatchNorm do not
            count).
        unexpected: official names that no rule knows or whose place the model lacks, or whose
            shape does not fit (the text then says so).
        ignored: official names that have no place here by rule, such as the step counter.
        reshaped: (official name, official shape, our shape), loaded in another layout.
    """

    matched: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing unexpected."""
        return not self.missing and not self.unexpected

    def __str__(self) -> str:
        lines = [
            f"{len(self.matched)} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.reshaped)} reshaped, "
            f"{len(self.ignored)} ignored"
        ]
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            lines += [f"  {title}: {name}" for name in names[:_LISTED]]
            if len(names) > _LISTED:
                lines.append(f"  {title}: and {len(names) - _LISTED} more")
        return "\n".join(lines)


@dataclass
class _Plan:
    """Copies to make, gathered before the first one is made."""

    copies: dict[str, Tensor] = field(default_factory=dict)
    matched: list[tuple[str, str]] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)


def read_official(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint file; nothing in it is executed (weights_only).

    Args:
        path: file of OpenPCDet ("model_state"), mmengine ("state_dict") or a bare state dict.

    Returns:
        {official name: tensor on the CPU}.

    Raises:
        CheckpointError: not there, not readable, or without weights.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # torch's own text runs over many lines and advises to switch the protection off
        raise CheckpointError(
            f"checkpoint {path} cannot be read: it is damaged, cut short, no checkpoint, or holds "
            "more than weights; download it again (--debug shows torch's reason)"
        ) from error
    for key in _WEIGHT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"checkpoint {path} holds no weights (looked under {', '.join(_WEIGHT_KEYS)})"
        )
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def load_official(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    system: str,
    *,
    part: str = "",
    strict: bool = True,
) -> LoadReport:
    """Load official weights into our model.

    Args:
        model: our Detector, or with `part` our module of that part.
        state_dict: {official name: tensor}.
        system: whose names these are, e.g. "dsvt".
        part: child of the official detector that the names are relative to, e.g. "backbone_3d".
        strict: raise unless every tensor on both sides finds its partner; nothing is loaded then.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: something is missing or unexpected (strict only).
        ValueError: unknown system or part.
    """
    own = model.state_dict()
    plan = _Plan()
    for name, tensor in state_dict.items():
        _place(name, tensor, own, (system, part), plan)
    report = LoadReport(
        matched=tuple(plan.matched),
        missing=tuple(
            name for name in own if name not in plan.copies and not name.endswith(_COUNTER)
        ),
        unexpected=tuple(plan.unexpected),
        ignored=tuple(plan.ignored),
        reshaped=tuple(plan.reshaped),
    )
    if strict and not report.complete:
        raise CheckpointError(
            f"the weights of system {system!r} do not fit {type(model).__name__}: {report}"
        )
    with torch.no_grad():
        for name, tensor in plan.copies.items():
            own[name].copy_(tensor)
    return report


def _place(
    name: str, tensor: Tensor, own: Mapping[str, Tensor], source: tuple[str, str], plan: _Plan
) -> None:
    """Find the place of one official tensor and enter it in the plan."""
    system, part = source
    found = find_rule(official_prefix(part) + name, system)
    if found is None:
        plan.unexpected.append(name)
        return
    rule, our_name = found
    if our_name is None:
        plan.ignored.append(name)
        return
    target = our_name.removeprefix(our_prefix(part))
    if target not in own:
        plan.unexpected.append(name)
        return
    value = tensor if rule.transform is None else rule.transform(tensor)
    fitted = fit_layout(value, tuple(own[target].shape))
    if fitted is None:
        plan.unexpected.append(
            f"{name} {tuple(value.shape)} for {target} {tuple(own[target].shape)}"
        )
        return
    if target in plan.copies and not torch.equal(plan.copies[target], fitted):
        plan.unexpected.append(f"{name}, which contradicts what {target} already has")
        return
    if tensor.shape != fitted.shape:
        plan.reshaped.append((name, tuple(tensor.shape), tuple(fitted.shape)))
    plan.copies[target] = fitted
    plan.matched.append((name, target))


def fit_layout(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return the tensor in the wanted shape, None if no known layout leads there.

    Known are the sparse convolution weights of spconv 1.x (kz, ky, kx, in, out) and 2.x
    (out, kz, ky, kx, in), either way, and axes of length one (a 1x1 convolution and a linear
    layer).
    """
    if tuple(tensor.shape) == shape:
        return tensor
    if tensor.ndim == 5 and len(shape) == 5:
        for order in ((4, 0, 1, 2, 3), (1, 2, 3, 4, 0)):
            if tuple(tensor.shape[axis] for axis in order) == shape:
                return tensor.permute(order)
    if [size for size in tensor.shape if size != 1] == [size for size in shape if size != 1]:
        return tensor.reshape(shape)
    return None
