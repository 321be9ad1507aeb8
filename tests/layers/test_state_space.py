"""The state space block against its own definition, written out token by token."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perception3d.layers.state_space import StateSpaceBlock
from perception3d.structures import CurveOrder, CurveSpec


def curve(*lengths: int, seed: int = 0) -> CurveOrder:
    """Sequences of these lengths over shuffled rows."""
    order = torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(seed))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return CurveOrder(order, offsets, CurveSpec(9))


def block(channels: int = 6, seed: int = 0, **settings: object) -> StateSpaceBlock:
    torch.manual_seed(seed)
    made = StateSpaceBlock(channels, states=5, **settings).double()
    with torch.no_grad():  # nothing may hide behind a start of ones and zeros
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def by_definition(made: StateSpaceBlock, features: torch.Tensor, curve: CurveOrder) -> torch.Tensor:
    """Section 4 of the paper's block, one token after the other."""
    rank, states, _ = made.splits
    rms = features.square().mean(1, keepdim=True).add(made.norm.eps).sqrt()
    both = features / rms * made.norm.weight @ made.in_proj.weight.T
    inside, gate = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    result = torch.zeros_like(features)
    for start, end in zip(curve.offsets[:-1].tolist(), curve.offsets[1:].tolist(), strict=True):
        rows = curve.order[start:end].tolist()
        rows = rows[::-1] if made.reverse else rows
        state = features.new_zeros(inside.shape[1], states)
        for place, row in enumerate(rows):
            taps = made.conv.weight.shape[2]
            token = made.conv.bias.clone()
            for tap in range(taps):
                before = place - (taps - 1) + tap
                if before >= 0:
                    token = token + made.conv.weight[:, 0, tap] * inside[rows[before]]
            token = F.silu(token)
            step, into, out_of = (made.x_proj.weight @ token).split([rank, states, states])
            delta = F.softplus(made.step_proj.weight @ step + made.step_proj.bias)
            decay = torch.exp(delta[:, None] * -torch.exp(made.A_log))
            state = decay * state + (delta * token)[:, None] * into
            mixed = state @ out_of + made.skip * token
            result[row] = made.out_proj.weight @ (mixed * F.silu(gate[row]))
    return result


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("settings", [{}, {"taps": 2, "expand": 3, "step_rank": 2}])
def test_equals_its_definition(reverse: bool, settings: dict):
    made = block(reverse=reverse, **settings)
    order = curve(7, 0, 1, 3)
    features = torch.randn(11, 6, dtype=torch.float64)
    assert_close(made(features, order), by_definition(made, features, order))


def test_directions_see_different_tokens():
    forwards, backwards = block(), block(reverse=True)
    order = curve(9)
    features = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    first, last = order.order[0], order.order[-1]
    (seen,) = torch.autograd.grad(forwards(features, order)[first].sum(), features)
    assert seen[first].any()
    assert not seen[last].any()
    (seen,) = torch.autograd.grad(backwards(features, order)[first].sum(), features)
    assert seen[last].any()


def test_sequences_do_not_see_each_other():
    made = block()
    order = curve(5, 4)
    features = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    rows = order.order[5:]
    (seen,) = torch.autograd.grad(made(features, order)[rows].sum(), features)
    assert seen[rows].any(1).all()
    assert not seen[order.order[:5]].any()


@pytest.mark.parametrize("lengths", [(0,), (1,), (0, 1, 0), (64, 65, 63)])
@pytest.mark.parametrize("training", [True, False])
def test_any_length(lengths: tuple[int, ...], training: bool):
    made = block().train(training)
    features = torch.randn(sum(lengths), 6, dtype=torch.float64, requires_grad=True)
    result = made(features, curve(*lengths))
    assert_close(result, by_definition(made, features, curve(*lengths)))
    result.square().sum().backward()
    assert features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients(reverse: bool):
    made = block(channels=3, expand=1, reverse=reverse)
    order = curve(5, 3)
    features = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in made.named_parameters()]

    def run(features: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(made, named, (features, order))

    assert torch.autograd.gradcheck(run, (features, *made.parameters()))


def test_start_values():
    torch.manual_seed(0)
    made = StateSpaceBlock(64)
    assert_close(made.A_log.exp(), torch.arange(1.0, 17).repeat(128, 1))
    assert torch.equal(made.skip, torch.ones(128))
    steps = F.softplus(made.step_proj.bias)
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    # log-uniform: half of them below the geometric middle
    assert abs((steps < 1e-2).float().mean() - 0.5) < 0.15
    assert made.step_proj.weight.abs().max() <= 4**-0.5
    assert made.step_proj.in_features == 4 == math.ceil(64 / 16)


def test_names_what_weight_decay_should_leave():
    made = block()
    assert {id(p) for p in made.undecayed_parameters()} == {id(made.A_log), id(made.skip)}


def test_mixed_precision_keeps_the_recurrence_in_float():
    torch.manual_seed(0)
    made = StateSpaceBlock(32)
    order = curve(300, 40)
    features = torch.randn(340, 32)
    want = made(features, order)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = made(features, order)
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().max() < 0.02 * want.abs().max()


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match="StateSpaceBlock: channels, states, taps, expand and"):
        StateSpaceBlock(8, taps=0)
