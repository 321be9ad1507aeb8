"""Losses by hand, their gradients, and their precision."""

import math

import pytest
import torch

from perception3d.models.losses import (
    aligned_diou_3d,
    gaussian_focal_loss,
    masked_l1_loss,
    masked_mean,
    sigmoid_focal_loss,
)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_focal_loss_by_hand():
    logits = torch.tensor([logit(0.7), logit(0.2), logit(0.4)])
    heatmap = torch.tensor([1.0, 0.0, 0.5])
    expected = -math.log(0.7) * 0.3**2
    expected -= math.log(0.8) * 0.2**2
    expected -= math.log(0.6) * 0.4**2 * 0.5**4
    assert gaussian_focal_loss(logits, heatmap).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_classes_by_hand():
    logits = torch.tensor([[logit(0.7), logit(0.2)]], requires_grad=True)
    expected = -0.25 * math.log(0.7) * 0.3**2 - 0.75 * math.log(0.8) * 0.2**2
    wanted = torch.tensor([[1, 0]])
    for count, divisor in ((0, 1), (1, 1), (4, 4)):
        loss = sigmoid_focal_loss(logits, wanted, torch.tensor(count))
        assert loss.item() == pytest.approx(expected / divisor, rel=1e-6)
    # the logarithm of a probability of 0 is never taken
    extreme = sigmoid_focal_loss(torch.tensor([[-200.0, 200.0]]), wanted, torch.tensor(1))
    assert extreme.item() == pytest.approx(200 * (0.25 + 0.75))


def test_focal_loss_is_divided_by_the_centres():
    logits = torch.tensor([0.3, 0.3, -1.0])
    one = gaussian_focal_loss(logits[1:], torch.tensor([1.0, 0.0]))
    two = gaussian_focal_loss(logits, torch.tensor([1.0, 1.0, 0.0]))
    hit = -math.log(1 / (1 + math.exp(-0.3))) * (1 - 1 / (1 + math.exp(-0.3))) ** 2
    assert two.item() * 2 == pytest.approx(one.item() + hit, rel=1e-6)


def test_focal_loss_without_centres_is_not_divided():
    logits = torch.tensor([logit(0.2), logit(0.2)])
    loss = gaussian_focal_loss(logits, torch.zeros(2))
    assert loss.item() == pytest.approx(-2 * math.log(0.8) * 0.2**2, rel=1e-6)


def test_focal_loss_clamps_probabilities():
    far = gaussian_focal_loss(torch.tensor([-100.0]), torch.ones(1))
    assert far.item() == pytest.approx(-math.log(1e-4) * (1 - 1e-4) ** 2, rel=1e-5)
    assert gaussian_focal_loss(torch.tensor([100.0]), torch.zeros(1)).isfinite()


def test_focal_loss_of_half_precision_is_computed_in_float32():
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 4
    heatmap = torch.rand(1000, generator=torch.Generator().manual_seed(1)).half().float()
    heatmap[:10] = 1.0
    wanted = gaussian_focal_loss(logits.half().float(), heatmap)
    with torch.autocast("cpu", torch.bfloat16):
        found = gaussian_focal_loss(logits.half(), heatmap.half())
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_l1_by_hand():
    found = torch.tensor([[[1.0, 2.0], [5.0, 5.0], [9.0, 9.0]]])
    wanted = torch.tensor([[[0.0, 4.0], [5.5, math.nan], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert masked_l1_loss(found, wanted, mask).tolist() == [1.5 / 2, 2.0 / 2]


def test_l1_leaves_unknown_targets_without_gradient():
    found = torch.zeros(1, 1, 2, requires_grad=True)
    loss = masked_l1_loss(found, torch.tensor([[[1.0, math.nan]]]), torch.ones(1, 1).bool())
    loss.sum().backward()
    assert found.grad.tolist() == [[[-1.0, 0.0]]]


@pytest.mark.parametrize("slots", [0, 3])
def test_nothing_to_learn_is_zero_and_still_connected(slots):
    found = torch.randn(2, slots, 4, requires_grad=True)
    loss = masked_l1_loss(found, torch.zeros(2, slots, 4), torch.zeros(2, slots).bool()).sum()
    loss = loss + masked_mean(found[..., 0], torch.zeros(2, slots).bool())
    loss.backward()
    assert loss.item() == 0
    assert not found.grad.any()


def test_diou_by_hand():
    cube = torch.tensor([[0.0, 0, 0, 2, 2, 2]])
    assert aligned_diou_3d(cube, cube).item() == 1.0
    # half shifted: IoU 4 / 12, squared distance 1, hull 3 x 2 x 2
    shifted = torch.tensor([[1.0, 0, 0, 2, 2, 2]])
    assert aligned_diou_3d(cube, shifted).item() == pytest.approx(1 / 3 - 1 / 17, rel=1e-6)
    apart = torch.tensor([[10.0, 0, 0, 2, 2, 2]])
    assert aligned_diou_3d(cube, apart).item() == pytest.approx(-100 / (144 + 8), rel=1e-6)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    heatmap = torch.rand(2, 3, 4, dtype=torch.float64, generator=generator)
    heatmap[0, 0, :2] = 1.0
    assert torch.autograd.gradcheck(gaussian_focal_loss, (logits, heatmap))
    mask = torch.rand(2, 3, generator=generator) > 0.4
    wanted = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    wanted[1, 1, 2] = math.nan
    assert torch.autograd.gradcheck(lambda x: masked_l1_loss(x, wanted, mask), (logits,))
    boxes = torch.rand(2, 5, 6, dtype=torch.float64, generator=generator) + 0.5
    found = boxes[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: aligned_diou_3d(x, boxes[1]), (found,))
