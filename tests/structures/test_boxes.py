"""Boxes3D: axes, headings and velocities move together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from perception3d.structures import Boxes3D

finite = st.floats(-50, 50, width=32)


def random_boxes(count: int = 6) -> Boxes3D:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(count, 9, generator=generator, dtype=torch.float64)
    rows[:, 3:6] = rows[:, 3:6].abs() + 0.5
    return Boxes3D(rows)


def same_up_to_full_turns(ours: Boxes3D, theirs: Boxes3D) -> None:
    columns = [0, 1, 2, 3, 4, 5, 7, 8]
    assert_close(ours.tensor[:, columns], theirs.tensor[:, columns])
    assert_close(ours.yaws.cos(), theirs.yaws.cos())
    assert_close(ours.yaws.sin(), theirs.yaws.sin())


@pytest.mark.parametrize("axis", ["x", "y"])
def test_two_flips_are_none(axis: str):
    boxes = random_boxes()
    same_up_to_full_turns(boxes.flipped(axis).flipped(axis), boxes)


def test_both_flips_are_half_a_turn():
    boxes = random_boxes()
    same_up_to_full_turns(boxes.flipped("x").flipped("y"), boxes.rotated(math.pi))


@given(angle=finite)
def test_rotation_and_back(angle: float):
    boxes = random_boxes()
    same_up_to_full_turns(boxes.rotated(angle).rotated(-angle), boxes)


@given(factor=st.floats(0.1, 10), offset=st.tuples(finite, finite, finite))
def test_scaling_and_shifting_back(factor: float, offset: tuple[float, float, float]):
    boxes = random_boxes()
    assert_close(boxes.scaled(factor).scaled(1 / factor).tensor, boxes.tensor)
    back = tuple(-step for step in offset)
    assert_close(boxes.translated(offset).translated(back).tensor, boxes.tensor)


@given(angle=finite)
def test_corners_turn_with_the_box(angle: float):
    boxes = random_boxes()
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    assert_close(boxes.rotated(angle).corners(), boxes.corners() @ turn)


def test_flipped_corners_are_the_mirrored_ones():
    boxes = random_boxes()
    for axis, mirror in (("x", [1.0, -1, 1]), ("y", [-1.0, 1, 1])):
        mirrored = boxes.corners() * torch.tensor(mirror)
        for ours, wanted in zip(boxes.flipped(axis).corners(), mirrored, strict=True):
            distances = torch.cdist(ours, wanted)
            assert distances.min(0).values.max() < 1e-9  # the same eight points, in another order


def test_corners_by_hand():
    boxes = Boxes3D(torch.tensor([[1.0, 2, 3, 4, 2, 1, math.pi / 2, 0, 0]]))
    corners = boxes.corners()[0]
    assert_close(corners[0], torch.tensor([0.0, 4.0, 2.5]), atol=1e-6, rtol=0)  # front left, bottom
    assert_close(corners[4], torch.tensor([0.0, 4.0, 3.5]), atol=1e-6, rtol=0)
    assert_close(corners[2], torch.tensor([2.0, 0.0, 2.5]), atol=1e-6, rtol=0)  # rear right


def test_velocity_follows_and_unknown_stays_unknown():
    boxes = Boxes3D(
        torch.tensor([[0.0, 0, 0, 1, 1, 1, 0, 2, 0], [0, 0, 0, 1, 1, 1, 0, math.nan, math.nan]])
    )
    turned = boxes.rotated(math.pi / 2)
    assert_close(turned.velocities[0], torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)
    assert turned.velocities[1].isnan().all()
    assert boxes.flipped("y").velocities[0, 0] == -2


def test_joining_and_picking():
    boxes = random_boxes(4)
    assert torch.equal(Boxes3D.cat([boxes[:1], boxes[1:]]).tensor, boxes.tensor)
    assert len(Boxes3D.cat([])) == len(Boxes3D.empty()) == 0
    assert len(boxes[boxes.centers[:, 0] > 1e9]) == 0
    assert Boxes3D.empty().corners().shape == (0, 8, 3)
    assert len(Boxes3D.empty().rotated(1.0).flipped("x").scaled(2.0)) == 0


def test_bad_boxes_are_refused():
    with pytest.raises(ValueError, match=r"tensor must be \(K, 9\) .* got \(2, 7\) float32"):
        Boxes3D(torch.zeros(2, 7))
    with pytest.raises(TypeError, match=r"got \(2, 9\) int64"):
        Boxes3D(torch.zeros(2, 9).long())
    with pytest.raises(ValueError, match="axis must be 'x' or 'y', got 'z'"):
        random_boxes().flipped("z")
