"""Optimiser: Adam with decoupled decay, one-cycle schedule, clipping, mixed precision."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

from perception3d.engine.build import build
from perception3d.engine.finite import check_gradients
from perception3d.errors import UserError

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OneCycle:
    """One-cycle schedule of learning rate and first Adam moment, a pure function of the step.

    The rate goes by a cosine from peak / div to the peak during the first `warmup` share of the
    steps, then by a cosine to peak / div / 1e4; beta1 goes down and up likewise. The step counts
    are those of open-mmlab/OpenPCDet: tools/train_utils/optimization/learning_schedules_fastai.py.
    The peak is the optimiser's `lr`.

    Args:
        warmup: share of the steps that climbs, in [0, 1).
        div: peak divided by the first rate.
        beta1: first moment at the ends and at the peak.
    """

    def __init__(
        self, warmup: float = 0.4, div: float = 10.0, beta1: tuple[float, float] = (0.95, 0.85)
    ) -> None:
        if not 0.0 <= warmup < 1.0:
            raise ValueError(f"warmup must lie in [0, 1), got {warmup}")
        if div < 1.0:
            raise ValueError(f"div must be >= 1, got {div}")
        self.warmup = warmup
        self.div = div
        self.beta1 = beta1

    def __call__(self, step: int, total: int) -> tuple[float, float | None]:
        """Return the factor on the peak rate, and beta1, for a step in [0, total)."""
        climb = int(self.warmup * total)
        outer, inner = self.beta1
        if step < climb:
            share = step / climb
            return _cosine(1.0 / self.div, 1.0, share), _cosine(outer, inner, share)
        share = (step - climb) / (total - climb)
        return _cosine(1.0, 1.0 / self.div / 1e4, share), _cosine(inner, outer, share)


class Constant:
    """No schedule: the optimiser's own rate and moments at every step."""

    def __call__(self, step: int, total: int) -> tuple[float, float | None]:
        """Return factor 1, and None for beta1: leave it."""
        return 1.0, None


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)


class TrainingOptim(OptimWrapper):  # type: ignore[misc]  # mmengine ships no types
    """Backward pass, clipping and step, with mixed precision on CPU and CUDA.

    mmengine's AmpOptimWrapper refuses to run without a GPU, clips only what the optimiser holds,
    and steps on NaN.

    Args:
        optimizer: updates a subset of the network's parameters.
        named_parameters: all trainable parameters; clipping takes the norm over them, and a
            message about a bad gradient names them.
        max_norm: largest gradient norm; None: no clipping.
        amp: None, "bf16" or "fp16" (CUDA only, with loss scaling).
        initial_loss_scale: first loss scale of fp16; it then adapts.
        accumulate: steps whose gradients are added before an update.
        finite_check: stop at the first gradient that is NaN or infinite.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: list[tuple[str, nn.Parameter]],
        max_norm: float | None = 35.0,
        amp: str | None = None,
        initial_loss_scale: float = 2.0**16,
        accumulate: int = 1,
        finite_check: bool = True,
    ) -> None:
        if amp is not None and amp not in AMP_DTYPES:
            raise ValueError(f"amp must be None, 'bf16' or 'fp16', got {amp!r}")
        if max_norm is not None and max_norm <= 0.0:
            raise ValueError(f"max_norm must be > 0 or None, got {max_norm}")
        super().__init__(optimizer, accumulative_counts=accumulate)
        self.named_parameters = named_parameters
        self.max_norm = max_norm
        self.finite_check = finite_check
        self.device_type = named_parameters[0][1].device.type
        self.dtype = None if amp is None else AMP_DTYPES[amp]
        if amp == "fp16" and self.device_type != "cuda":
            raise UserError("--amp fp16 needs a CUDA device; on the CPU use --amp bf16")
        self.scaler = (
            torch.amp.GradScaler("cuda", init_scale=initial_loss_scale) if amp == "fp16" else None
        )
        self.grad_norm: Tensor | None = None
        # The schedule multiplies these.
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the loss in here: mixed precision, and no gradient exchange between updates."""
        with (
            super().optim_context(model),
            torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None),
        ):
            yield

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Add the gradients of a loss, scaled up in fp16."""
        super().backward(loss if self.scaler is None else self.scaler.scale(loss), **options)

    def step(self, **options: Any) -> None:
        """Clip and update.

        Raises:
            NonFiniteError: a gradient is NaN or infinite (without loss scaling; with it such a
                step is left out and the scale is halved).
        """
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        parameters = [p for _, p in self.named_parameters if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.grad_norm = nn.utils.get_total_norm(gradients)
        if self.finite_check and self.scaler is None:
            # before clipping, which spreads one NaN over all gradients
            check_gradients(self.named_parameters, self.grad_norm)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.max_norm, self.grad_norm)
        if self.scaler is None:
            self.optimizer.step(**options)
        else:
            self.scaler.step(self.optimizer, **options)
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state and the loss scale."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.scaler is not None:
            state["loss_scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if self.scaler is not None and "loss_scaler" in state_dict:
            self.scaler.load_state_dict(state_dict["loss_scaler"])


def build_optim(
    config: dict[str, Any], model: nn.Module, amp: str | None = None, lr_factor: float = 1.0
) -> TrainingOptim:
    """Build the optimiser of a model.

    Every parameter is decayed, norms and biases included, as the published recipes do, but for
    what modules name in `undecayed_parameters()`: the decay rates of state space blocks.

    Args:
        config: arguments of `TrainingOptim`, with `optimizer` = dict(type=..., lr=...). With
            `official_frozen=True` the parameters in `frozen_parameters()` of `model.net.backbone`
            and of `model.net.head`, if it has any, are never updated, and their gradients are
            never cleared: they add up from step to step and count in the clipping norm. That is
            what the published DSVT training did, by an optimiser that did not know them
            (open-mmlab/OpenPCDet issue 960).
            `official_decay=True` decays everything, `undecayed_parameters()` too: the published
            Voxel Mamba marked them, but its optimiser did not look at the marks.
        model: its trainable parameters are optimised.
        amp: overrules the config's `amp`.
        lr_factor: multiplies the learning rate.

    Raises:
        UserError: a wrong name or value.
    """
    config = dict(config)
    if "optimizer" not in config:
        raise UserError("optim_wrapper: missing optimizer=dict(type=torch.optim.AdamW, lr=...)")
    optimizer_config = dict(config.pop("optimizer"))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UserError("model: has no trainable parameter")
    frozen = set()
    if config.pop("official_frozen", False):
        frozen = {id(parameter) for parameter in _frozen_parameters(model)}
    undecayed = set() if config.pop("official_decay", False) else _undecayed_parameters(model)
    optimizer_config["lr"] = optimizer_config.get("lr", 1e-3) * lr_factor
    optimizer = build(
        optimizer_config,
        _groups([p for _, p in named if id(p) not in frozen], undecayed),
        path="optim_wrapper.optimizer",
    )
    if amp is not None:
        config["amp"] = amp
    config.setdefault("type", TrainingOptim)
    wrapper = build(config, optimizer, named, path="optim_wrapper")
    assert isinstance(wrapper, TrainingOptim)
    return wrapper


def _groups(
    parameters: list[nn.Parameter], undecayed: set[int]
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Return the parameters, in groups with and without decay if there are both."""
    without = [p for p in parameters if id(p) in undecayed]
    if not without:
        return parameters
    decayed = [p for p in parameters if id(p) not in undecayed]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    groups.append({"params": without, "weight_decay": 0.0})
    return groups


def _undecayed_parameters(model: nn.Module) -> set[int]:
    """Return the ids of what modules ask to be left out of weight decay."""
    modules: Iterator[Any] = model.modules()
    return {
        id(parameter)
        for module in modules
        if hasattr(module, "undecayed_parameters")
        for parameter in module.undecayed_parameters()
    }


def _frozen_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    backbone: Any = getattr(getattr(model, "net", None), "backbone", None)
    if not hasattr(backbone, "frozen_parameters"):
        raise UserError(
            f"optim_wrapper.official_frozen: {type(backbone).__name__} has no frozen parameters; "
            f"the setting belongs to DSVT"
        )
    yield from backbone.frozen_parameters()
    head: Any = getattr(getattr(model, "net", None), "head", None)
    if hasattr(head, "frozen_parameters"):
        yield from head.frozen_parameters()
