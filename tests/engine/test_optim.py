import copy
import math

import pytest
import torch
from torch import nn
from toy_training import ToyNet

from perception3d.engine.finite import NonFiniteError
from perception3d.engine.hooks import ScheduleHook
from perception3d.engine.optim import OneCycle, TrainingOptim, build_optim
from perception3d.engine.trainable import TrainableModel
from perception3d.errors import UserError

ADAMW = {"type": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.05, "betas": (0.95, 0.99)}


def test_one_cycle_at_hand_computed_steps() -> None:
    # 10 steps, 4 of them climb: lr 1/10 -> 1 -> 1/10/1e4, beta1 0.95 -> 0.85 -> 0.95
    cycle = OneCycle(warmup=0.4, div=10.0, beta1=(0.95, 0.85))
    assert cycle(0, 10) == (pytest.approx(0.1), pytest.approx(0.95))
    assert cycle(2, 10) == (pytest.approx(0.55), pytest.approx(0.90))
    assert cycle(4, 10) == (pytest.approx(1.0), pytest.approx(0.85))
    assert cycle(7, 10) == (pytest.approx(0.500005), pytest.approx(0.90))
    share = 5 / 6
    low = 1e-5 + (1 - 1e-5) / 2 * (math.cos(math.pi * share) + 1)
    assert cycle(9, 10)[0] == pytest.approx(low)


def test_one_cycle_without_climb_starts_at_the_peak() -> None:
    assert OneCycle(warmup=0.0)(0, 5)[0] == pytest.approx(1.0)
    assert OneCycle(warmup=0.4)(0, 1)[0] == pytest.approx(1.0)  # 0.4 of one step is none


@pytest.mark.parametrize(
    ("options", "message"), [({"warmup": 1.0}, "warmup must lie"), ({"div": 0.5}, "div must be")]
)
def test_one_cycle_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycle(**options)


def test_adamw_is_adam_after_multiplying_every_parameter() -> None:
    """The published rule: p *= 1 - lr * wd, then a plain Adam step; norms and biases included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    twin.load_state_dict(model.state_dict())
    ours = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3, betas=(0.9, 0.99))
    adam = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.9, 0.99))
    for step in range(3):
        data = torch.randn(8, 3)
        rate = 0.01 * (step + 1)
        for net, optimizer in ((model, ours), (twin, adam)):
            optimizer.zero_grad()
            net(data).square().mean().backward()
            optimizer.param_groups[0]["lr"] = rate
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1 - rate * 0.3)
        ours.step()
        adam.step()
    for got, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-7)


class _Run:
    """What ScheduleHook looks at."""

    def __init__(self, optim: TrainingOptim) -> None:
        self.optim_wrapper = optim
        self.iter = 0
        self.max_iters = 10


def test_the_schedule_sets_rate_and_beta() -> None:
    model = TrainableModel(ToyNet())
    optim = build_optim({"optimizer": ADAMW}, model, lr_factor=2.0)
    run = _Run(optim)
    hook = ScheduleHook(OneCycle(warmup=0.4, div=10.0))
    for step, rate, beta in ((0, 0.002, 0.95), (4, 0.02, 0.85)):
        run.iter = step
        hook.before_train_iter(run, step)
        (group,) = optim.optimizer.param_groups
        assert group["lr"] == pytest.approx(rate)
        assert group["betas"] == (pytest.approx(beta), 0.99)


def make(**options: object) -> tuple[TrainableModel, TrainingOptim]:
    torch.manual_seed(0)
    model = TrainableModel(ToyNet(dropout=0.0))
    return model, build_optim({"optimizer": dict(ADAMW), **options}, model)


def quadratic(model: nn.Module) -> torch.Tensor:
    return sum((p - 3.0).square().sum() for p in model.parameters())


def test_clipping_scales_all_gradients_to_the_norm() -> None:
    model, optim = make(max_norm=0.5)
    quadratic(model).backward()
    optim.step()
    total = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert float(total) == pytest.approx(0.5, rel=1e-4)
    assert float(optim.grad_norm) > 0.5


def test_official_frozen_parameters_stay_and_their_gradients_add_up() -> None:
    model, optim = make(official_frozen=True, max_norm=None)
    frozen = model.net.backbone.inner.weight
    before = frozen.detach().clone()
    other = model.net.head.weight.detach().clone()
    for _ in range(3):
        optim.update_params(quadratic(model))
    assert torch.equal(frozen, before)
    assert not torch.equal(model.net.head.weight, other)
    # never cleared: three steps of the same gradient
    torch.testing.assert_close(frozen.grad, 3 * 2 * (before - 3.0))
    assert all(p is not frozen for p in optim.optimizer.param_groups[0]["params"])
    # and they count in the norm
    assert float(optim.grad_norm) >= float(frozen.grad.norm())


def test_official_frozen_needs_a_backbone_that_knows_it() -> None:
    model = TrainableModel(nn.Linear(2, 2))
    with pytest.raises(UserError, match="official_frozen"):
        build_optim({"optimizer": ADAMW, "official_frozen": True}, model)


class _Rates(nn.Linear):
    """A module whose bias asks for no decay."""

    def undecayed_parameters(self) -> tuple[nn.Parameter]:
        return (self.bias,)


@pytest.mark.parametrize("official", [False, True])
def test_what_modules_name_is_not_decayed(official: bool) -> None:
    torch.manual_seed(0)
    model = TrainableModel(nn.Sequential(nn.Linear(3, 4), _Rates(4, 2)))
    optim = build_optim({"optimizer": ADAMW, "official_decay": official}, model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.step()
    factor = 1 - 0.01 * 0.05
    for (name, now), then in zip(model.named_parameters(), before, strict=True):
        kept = name == "net.1.bias" and not official
        torch.testing.assert_close(now.detach(), then if kept else then * factor, rtol=1e-6, atol=0)
    groups = optim.optimizer.param_groups
    assert len(groups) == (1 if official else 2)
    assert all(group["initial_lr"] == 0.01 for group in groups)
    ScheduleHook(OneCycle(warmup=0.4, div=10.0)).before_train_iter(_Run(optim), 0)
    assert all(group["lr"] == pytest.approx(0.001) for group in groups)


def test_bf16_on_the_cpu() -> None:
    model, optim = make(amp="bf16")
    layer = model.net.head
    with optim.optim_context(model):
        output = layer(torch.ones(2, 8))
        assert output.dtype is torch.bfloat16
        loss = output.float().square().mean()
    before = layer.weight.detach().clone()
    optim.update_params(loss)
    assert layer.weight.dtype is torch.float32
    assert not torch.equal(layer.weight, before)


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(
        UserError, match="--amp fp16 needs a CUDA device; on the CPU use --amp bf16"
    ):
        make(amp="fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nrom": 1.0}, "no argument 'max_nrom'; did you mean 'max_norm'"),
        ({"max_norm": -1.0}, "max_norm must be > 0"),
        ({"amp": "int8"}, "amp must be None, 'bf16' or 'fp16', got 'int8'"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)


def test_a_bad_gradient_is_named_before_it_reaches_the_weights() -> None:
    model, optim = make()
    before = [p.detach().clone() for p in model.parameters()]
    quadratic(model).backward()
    model.net.backbone.norm.bias.grad[1] = math.nan
    with pytest.raises(NonFiniteError, match=r"gradient of parameter net.backbone.norm.bias"):
        optim.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_state_survives_storage() -> None:
    model, optim = make()
    optim.update_params(quadratic(model))
    state = optim.state_dict()
    twin, other = make()
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(state))
    for net, wrapper in ((model, optim), (twin, other)):
        wrapper.update_params(quadratic(net))
    for got, wanted in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(got, wanted)
